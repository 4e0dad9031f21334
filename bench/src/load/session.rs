//! What the load says in Chappe's protocol: sign in, make a channel, join, subscribe.

use std::{
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use chappe_protocol::{
    ChannelId, ChannelName, ClientFrame, Command, Nonce, command,
    frame::Incoming,
    message::ChannelKind,
    reply::{Change, SubscribeReply},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::{generator::Generator, link::Heard};
use crate::wire::{self, BINARY, ENCODING};

/// How many connections may be in the middle of something at once.
pub(crate) const WINDOW: usize = 64;
const TOKEN_SECONDS: u64 = 3600;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    name: &'a str,
    iat: u64,
    exp: u64,
}

/// Signs tokens of the development issuer.
pub(crate) struct Signer {
    header: Header,
    key: EncodingKey,
}

impl Signer {
    /// With the secret of a server's data directory.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("chappe-dev".to_owned());
        Self { header, key: EncodingKey::from_secret(secret) }
    }

    /// A token for the user with this number.
    pub(crate) fn token(&self, user: usize) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let name = format!("bench-{user}");
        let claims = Claims {
            iss: "chappe-dev",
            aud: "chappe",
            sub: &name,
            name: &name,
            iat: now,
            exp: now + TOKEN_SECONDS,
        };
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }

    /// The command that signs him in.
    pub(crate) fn hello(&self, user: usize) -> Result<Command> {
        Ok(Command::Hello(command::Hello {
            token: self.token(user)?,
            client: "chappe-bench".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            resume: None,
        }))
    }
}

/// A command as it goes over a link.
pub(crate) fn frame(id: u32, nonce: Option<Nonce>, command: Command) -> Vec<u8> {
    let mut payload = Vec::new();
    ENCODING.encode(&ClientFrame { id, nonce, age_ms: 0, command }, &mut payload);
    let mut frame = Vec::with_capacity(payload.len() + 8);
    wire::write_masked(BINARY, &payload, &mut frame);
    frame
}

/// Refuses a reply that is none, or an error. Whether it was the reply to `id`.
pub(crate) fn is_ok(payload: &[u8], id: u32) -> Result<bool> {
    match ENCODING.decode_server(payload)? {
        Incoming::Ok { id: found } => Ok(found == id),
        Incoming::Error { error, .. } => bail!("{} {}: {}", error.code, error.name, error.message),
        Incoming::Closing(closing) => bail!("closing: {} {}", closing.code, closing.message),
        _ => Ok(false),
    }
}

/// Opens `count` connections and signs each in as a user of its own, numbered like the connection.
pub(crate) fn sign_in(generator: &mut Generator, signer: &Signer, count: usize) -> Result<()> {
    let from = generator.len();
    let hellos = (from..from + count)
        .map(|user| Ok(frame(1, None, signer.hello(user)?)))
        .collect::<Result<Vec<_>>>()?;
    generator.open(
        count,
        WINDOW,
        &mut |index| hellos.get(index - from).cloned(),
        &mut |index, payload| {
            ensure!(
                is_ok(payload, 1)?,
                "connection {index} got something before its hello's reply"
            );
            Ok(())
        },
    )
}

/// Sends each connection's command and waits for all replies, a few at a time.
pub(crate) fn ask_each(
    generator: &mut Generator,
    links: Range<usize>,
    command: &mut dyn FnMut(usize) -> (Option<Nonce>, Command),
    reply: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    const ID: u32 = 2;
    let (mut next, mut done) = (links.start, links.start);
    while done < links.end {
        while next < links.end && next - done < WINDOW {
            let (nonce, command) = command(next);
            generator.send(next, &frame(ID, nonce, command))?;
            next += 1;
        }
        generator.turn(&mut |index, heard| {
            let Heard::Message(payload) = heard else { return Ok(()) };
            if is_ok(payload, ID)? {
                reply(index, payload)?;
                done += 1;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Makes a public channel on a connection.
pub(crate) fn create_channel(
    generator: &mut Generator,
    link: usize,
    name: &str,
) -> Result<ChannelId> {
    let create = command::CreateChannel {
        kind: ChannelKind::Public,
        name: Some(ChannelName::parse(name)?),
        topic: None,
        members: Vec::new(),
    };
    let nonce = Nonce::parse(name)?;
    let mut made = None;
    ask_each(
        generator,
        link..link + 1,
        &mut |_| (Some(nonce.clone()), create.clone().into()),
        &mut |_, payload| {
            made = Some(ENCODING.decode_ok::<Change>(payload)?.channel);
            Ok(())
        },
    )?;
    made.context("a reply without a channel")
}

/// Makes the users of these connections members.
pub(crate) fn join(
    generator: &mut Generator,
    links: Range<usize>,
    channel: ChannelId,
) -> Result<()> {
    ask_each(
        generator,
        links,
        &mut |_| (None, command::Join { channel }.into()),
        &mut |_, _| Ok(()),
    )
}

/// Subscribes these connections, from now on.
pub(crate) fn subscribe(
    generator: &mut Generator,
    links: Range<usize>,
    channel: ChannelId,
) -> Result<()> {
    let these = command::Channels::These(vec![command::ChannelFrom { id: channel, from: None }]);
    let subscribe = command::Subscribe { channels: these, incarnation: None };
    ask_each(generator, links, &mut |_| (None, subscribe.clone().into()), &mut |index, payload| {
        let reply: SubscribeReply = ENCODING.decode_ok(payload)?;
        for outcome in reply.channels {
            if let Some(error) = outcome.error {
                bail!("connection {index} may not subscribe: {} {}", error.code, error.name);
            }
        }
        Ok(())
    })
}
