//! Unmasking in place, eight bytes at a time.

/// Applies the mask of a client's frame to its payload.
pub(crate) fn apply(mask: [u8; 4], payload: &mut [u8]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_length_is_masked_byte_by_byte() {
        let mask = [0x12, 0x34, 0x56, 0x78];
        for length in 0..40_usize {
            let plain: Vec<u8> = (0..length as u8).collect();
            let mut masked = plain.clone();
            super::apply(mask, &mut masked);
            for (place, byte) in masked.iter().enumerate() {
                assert_eq!(*byte, plain[place] ^ mask[place % 4], "{length}/{place}");
            }
        }
    }
}
