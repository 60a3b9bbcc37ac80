//! Classifies the bytes of a block, as bitmaps.
//!
//! Three implementations: AVX2, SSE2 (in every x86_64 processor, so not checked for) and plain, for other machines.

/// One bit per byte of a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Classes {
    /// Space `,` `=` `"` backslash LF.
    pub(super) stops: u64,
    /// `0` to `9`.
    pub(super) digits: u64,
    /// Above 127.
    pub(super) high: u64,
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn classify(block: &[u8; 64]) -> Classes {
    // SAFETY: the function needs SSE2 and nothing else, and every x86_64 processor has it.
    unsafe { classify_sse2(block) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn classify_sse2(block: &[u8; 64]) -> Classes {
    use std::arch::x86_64::{
        _mm_and_si128, _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
        _mm_sub_epi8,
    };
    let mut classes = Classes { stops: 0, digits: 0, high: 0 };
    let (lanes, _) = block.as_chunks::<16>();
    for (i, lane) in lanes.iter().enumerate() {
        let both = u128::from_le_bytes(*lane);
        let bytes = _mm_set_epi64x((both >> 64) as i64, both as i64);
        let is = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
        // Space and quote differ in one bit only.
        let space_or_quote = _mm_cmpeq_epi8(_mm_and_si128(bytes, _mm_set1_epi8(!2)), _mm_set1_epi8(b' ' as i8));
        let stops = _mm_or_si128(
            _mm_or_si128(_mm_or_si128(is(b','), is(b'=')), _mm_or_si128(is(b'\\'), is(b'\n'))),
            space_or_quote,
        );
        // Shifted so that the digits become the ten smallest signed values.
        let moved = _mm_sub_epi8(bytes, _mm_set1_epi8((b'0' + 128) as i8));
        let digits = _mm_cmpgt_epi8(_mm_set1_epi8(-128 + 10), moved);
        let mask = |lane| u64::from(_mm_movemask_epi8(lane) as u16) << (16 * i);
        classes.stops |= mask(stops);
        classes.digits |= mask(digits);
        classes.high |= mask(bytes);
    }
    classes
}

/// The same in half as many steps.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn classify_avx2(block: &[u8; 64]) -> Classes {
    use std::arch::x86_64::{
        _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_cmpgt_epi8, _mm256_movemask_epi8, _mm256_or_si256,
        _mm256_set_epi64x, _mm256_set1_epi8, _mm256_sub_epi8,
    };
    let mut classes = Classes { stops: 0, digits: 0, high: 0 };
    let (words, _) = block.as_chunks::<8>();
    for i in 0..2 {
        let word = |at: usize| i64::from_le_bytes(words[4 * i + at]);
        let bytes = _mm256_set_epi64x(word(3), word(2), word(1), word(0));
        let is = |byte: u8| _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte as i8));
        let space_or_quote =
            _mm256_cmpeq_epi8(_mm256_and_si256(bytes, _mm256_set1_epi8(!2)), _mm256_set1_epi8(b' ' as i8));
        let stops = _mm256_or_si256(
            _mm256_or_si256(_mm256_or_si256(is(b','), is(b'=')), _mm256_or_si256(is(b'\\'), is(b'\n'))),
            space_or_quote,
        );
        let moved = _mm256_sub_epi8(bytes, _mm256_set1_epi8((b'0' + 128) as i8));
        let digits = _mm256_cmpgt_epi8(_mm256_set1_epi8(-128 + 10), moved);
        let mask = |lane| u64::from(_mm256_movemask_epi8(lane) as u32) << (32 * i);
        classes.stops |= mask(stops);
        classes.digits |= mask(digits);
        classes.high |= mask(bytes);
    }
    classes
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) use classify_plain as classify;

#[cfg(any(test, not(target_arch = "x86_64")))]
pub(super) fn classify_plain(block: &[u8; 64]) -> Classes {
    let mut classes = Classes { stops: 0, digits: 0, high: 0 };
    for (i, &byte) in block.iter().enumerate() {
        classes.stops |= u64::from(b" ,=\"\\\n".contains(&byte)) << i;
        classes.digits |= u64::from(byte.is_ascii_digit()) << i;
        classes.high |= u64::from(byte >> 7) << i;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_find_every_byte_at_every_place() {
        for first in 0..=255u8 {
            // Each byte occurs at each place in one of the blocks, among all kinds of others.
            let block = std::array::from_fn(|i| first.wrapping_add(i as u8));
            let want = classify_plain(&block);
            assert_eq!(classify(&block), want);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: AVX2 is all it needs.
                assert_eq!(unsafe { classify_avx2(&block) }, want);
            }
        }
    }
}
