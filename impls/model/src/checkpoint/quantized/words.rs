//! Codes in 32-bit words: a run of codes is one stream of bits, lowest first, so that 3-bit codes cross words.

/// Words that hold `len` codes.
pub fn packed_len(len: usize, bits: u8) -> usize {
    (len * bits as usize).div_ceil(32)
}

/// Codes `0..len` of the stream whose words are `word(0..)`.
pub fn unpack_words(len: usize, bits: u8, word: impl Fn(usize) -> u32) -> impl Iterator<Item = u8> {
    let bits = bits as usize;
    (0..len).map(move |i| {
        let (at, shift) = (i * bits / 32, i * bits % 32);
        let low = word(at) >> shift;
        let high = if shift + bits > 32 { word(at + 1) << (32 - shift) } else { 0 };
        ((low | high) & ((1 << bits) - 1)) as u8
    })
}

/// The words of `codes`, each below 2^bits.
pub fn pack_words(codes: impl Iterator<Item = u8>, bits: u8, words: &mut [u32]) {
    let bits = bits as usize;
    words.fill(0);
    for (i, code) in codes.enumerate() {
        let (at, shift) = (i * bits / 32, i * bits % 32);
        words[at] |= (code as u32) << shift;
        if shift + bits > 32 {
            words[at + 1] |= (code as u32) >> (32 - shift);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_undone() {
        for bits in [2, 3, 4, 8] {
            let codes: Vec<u8> = (0..96u32).map(|i| (i * 37 % (1 << bits)) as u8).collect();
            let mut words = vec![0; packed_len(codes.len(), bits)];
            pack_words(codes.iter().copied(), bits, &mut words);
            assert_eq!(unpack_words(codes.len(), bits, |i| words[i]).collect::<Vec<_>>(), codes, "{bits} bits");
        }
    }

    #[test]
    fn three_bit_codes_lie_as_autogptq_puts_them() {
        // code 10 has its low two bits at the top of word 0; code 21 its low bit at the top of word 1
        let mut codes = [0u8; 32];
        (codes[10], codes[11], codes[21], codes[22]) = (0b101, 0b011, 0b111, 0b001);
        let mut words = [0; 3];
        pack_words(codes.into_iter(), 3, &mut words);
        assert_eq!(words, [0b01 << 30, 0b1 | 0b011 << 1 | 1 << 31, 0b11 | 0b001 << 2]);
    }
}
