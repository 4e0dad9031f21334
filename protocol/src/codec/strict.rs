//! A deserializer around a format's own that takes less and says less.
//!
//! It takes no array where a struct is meant, though serde would: one frame would have two
//! spellings. Nor what only one encoding can say: a number that is not finite, a string that is
//! not UTF-8. What is ignored is held to this too. And of a refused value it says the place and
//! the rule, never what was sent ([`Fault`]).
//!
//! The format underneath has an error type of its own, through which a fault cannot pass. So a
//! fault waits in the [`Context`] while the format carries an empty error of its own outwards.
//!
//! Everything here is a thin layer around each call of serde's, so it is inlined: left to itself
//! the compiler made a decode half as slow again (`benches/codec.rs`).

use std::{cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use super::fault::Fault;
use crate::code::ErrorCode;

/// Reads a value from `inner`, a format that describes its own types.
pub(super) fn read<'de, T, D>(inner: D) -> Result<T, Fault>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(Strict { inner, context: &Context::default() })
}

#[derive(Default)]
struct Context<'de> {
    /// The fault on its way outwards.
    fault: Cell<Option<Fault>>,
    /// The key that was read last, when it lies in the frame as it is.
    key: Cell<Option<&'de str>>,
}

impl Context<'_> {
    /// The format's error that stands for `fault`.
    fn enter<E: de::Error>(&self, fault: Fault) -> E {
        self.fault.set(Some(fault));
        E::custom("")
    }

    /// The fault that the format's error stands for. What the format refused by itself, after the
    /// scan found the frame sound, is a number, a word or an escape that is none.
    fn leave<E>(&self, _: E) -> Fault {
        self.fault.take().unwrap_or_else(|| Fault::malformed(ErrorCode::Malformed.message()))
    }
}

/// The deserializer, and the seed that makes one of the format's next value.
struct Strict<'c, 'de, D> {
    inner: D,
    context: &'c Context<'de>,
}

/// What the value under a visitor is meant to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meant {
    Anything,
    Key,
    /// Not an array; a map's keys have these names.
    Map(&'static [&'static str]),
}

impl<'de, D: Deserializer<'de>> Strict<'_, 'de, D> {
    #[inline(always)]
    fn visit<V: Visitor<'de>>(self, visitor: V, meant: Meant) -> Result<V::Value, Fault> {
        let context = self.context;
        let visitor = Checked { inner: visitor, meant, context };
        self.inner.deserialize_any(visitor).map_err(|error| context.leave(error))
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, 'de, D> {
    type Error = Fault;

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit(visitor, Meant::Anything)
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit(visitor, Meant::Key)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.visit(visitor, Meant::Map(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.visit(EnumVisitor { inner: visitor, variants }, Meant::Map(variants))
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let context = self.context;
        let visitor = Checked { inner: visitor, meant: Meant::Anything, context };
        self.inner.deserialize_option(visitor).map_err(|error| context.leave(error))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map ignored_any
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<'_, 'de, S> {
    type Value = S::Value;

    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let context = self.context;
        self.inner.deserialize(Strict { inner, context }).map_err(|fault| context.enter(fault))
    }
}

/// A visitor that sees maps and arrays through [`Entries`] and [`Items`].
struct Checked<'c, 'de, V> {
    inner: V,
    meant: Meant,
    context: &'c Context<'de>,
}

/// Hands scalars on as they are.
macro_rules! hand_on {
    ($($method:ident: $type:ty,)*) => {
        $(#[inline]
        fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value).map_err(|fault| self.context.enter(fault))
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Checked<'_, 'de, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    hand_on! {
        visit_bool: bool,
        visit_i64: i64,
        visit_u64: u64,
        visit_str: &str,
        visit_string: String,
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<V::Value, E> {
        if !number.is_finite() {
            return Err(self.context.enter(Fault::malformed("a number is not finite")));
        }
        self.inner.visit_f64(number).map_err(|fault| self.context.enter(fault))
    }

    /// After the scan, bytes are a string that MessagePack could not read as one.
    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<V::Value, E> {
        Err(self.context.enter(Fault::malformed("a string is not UTF-8")))
    }

    #[inline]
    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<V::Value, E> {
        if self.meant == Meant::Key {
            self.context.key.set(Some(text));
        }
        self.inner.visit_borrowed_str(text).map_err(|fault| self.context.enter(fault))
    }

    #[inline]
    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none().map_err(|fault| self.context.enter(fault))
    }

    #[inline]
    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit().map_err(|fault| self.context.enter(fault))
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let context = self.context;
        self.inner.visit_some(Strict { inner, context }).map_err(|fault| context.enter(fault))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let context = self.context;
        let names = match self.meant {
            Meant::Map(names) => names,
            Meant::Anything | Meant::Key => &[],
        };
        let entries = Entries { inner, names, key: None, context };
        self.inner.visit_map(entries).map_err(|fault| context.enter(fault))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let context = self.context;
        if let Meant::Map(_) = self.meant {
            return Err(context.enter(de::Error::invalid_type(de::Unexpected::Seq, &self.inner)));
        }
        let mut items = Items { inner, context };
        let value = self.inner.visit_seq(&mut items).map_err(|fault| context.enter(fault))?;
        // A tuple's visitor leaves what is too much, and the formats disagree on what that is.
        match items.inner.next_element::<IgnoredAny>()? {
            None => Ok(value),
            Some(_) => Err(context.enter(de::Error::invalid_length(0, &"a shorter array"))),
        }
    }
}

/// Reads an enum: a string names a variant without a value, a map of one entry one with.
struct EnumVisitor<V> {
    inner: V,
    variants: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for EnumVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", self.variants.join(", "))
    }

    fn visit_str<E: de::Error>(self, variant: &str) -> Result<V::Value, E> {
        self.inner.visit_enum(StrDeserializer::new(variant))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<V::Value, A::Error> {
        let value = self.inner.visit_enum(MapAccessDeserializer::new(&mut map))?;
        match map.next_key::<IgnoredAny>()? {
            None => Ok(value),
            Some(_) => Err(de::Error::invalid_length(2, &"a map with one key")),
        }
    }
}

/// A map's entries. It knows where it is, so that a fault names its field.
struct Entries<'c, 'de, A> {
    inner: A,
    names: &'static [&'static str],
    key: Option<&'de str>,
    context: &'c Context<'de>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, 'de, A> {
    type Error = Fault;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let context = self.context;
        context.key.set(None);
        let key = self.inner.next_key_seed(Strict { inner: seed, context });
        self.key = context.key.get();
        key.map_err(|error| context.leave(error))
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let context = self.context;
        let value = self.inner.next_value_seed(Strict { inner: seed, context });
        value.map_err(|error| {
            let fault = context.leave(error);
            // Only a name of ours is repeated.
            match self.names.iter().find(|name| Some(**name) == self.key) {
                Some(name) => fault.within(name),
                None => fault,
            }
        })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// An array's items.
struct Items<'c, 'de, A> {
    inner: A,
    context: &'c Context<'de>,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<'_, 'de, A> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let context = self.context;
        let item = self.inner.next_element_seed(Strict { inner: seed, context });
        item.map_err(|error| context.leave(error))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}
