//! The fast path: ordinary lines.
//!
//! A window of the body is first turned into bitmaps, one bit per byte: *stops* (the bytes that can end a part of a
//! line) and *digits*. Then a line is parsed from stop to stop, and a number is checked by the bits of its digits,
//! without a look at each byte. A line that is not plain is declined, valid or not: this file never refuses a line, so
//! it needs no error texts and no special cases.
//!
//! Quotes are accepted only around a whole value, and backslashes only where all of InfluxDB's parsers agree on what
//! they escape. Then all agree on where everything ends, and a plain line is a line of its own among any others.
//!
//! Tried and dropped: a list of the stops' offsets made with the bitmaps (12 % slower on lines like telegraf's, 7 %
//! faster on shuffled ones), and going from word to word without a branch (20 % slower).

use super::classes::{self, Classes, classify};
use super::{Line, number};
use crate::precision::Precision;

/// Bytes indexed at once; a longer line is not plain. Small enough that the bitmaps fit the first-level cache.
const WINDOW_BYTES: usize = 64 * WORDS;
const WORDS: usize = 64;
/// Most tags of a plain line.
const TAGS_MAX: usize = 16;

/// Bitmaps of a window of one body.
pub(super) struct Index {
    /// `base..end` of the body is indexed.
    base: usize,
    end: usize,
    /// Bit `i` of word `w`: byte `base + 64 * w + i` is one of space `,` `=` `"` backslash LF. One more stop is set
    /// directly after the window, so that every search finds one.
    stops: [u64; WORDS + 1],
    /// Likewise for `0` to `9`.
    digits: [u64; WORDS + 1],
    /// Any byte above 127.
    has_high: bool,
}

/// Why a line was declined.
enum Declined {
    /// It is not plain.
    Odd,
    /// It does not end within the window.
    Cut,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { base: 0, end: 0, stops: [0; WORDS + 1], digits: [0; WORDS + 1], has_high: false }
    }

    /// Passes plain lines from `at` on to `sink` and returns the beginning of the first line that is not plain, or not
    /// complete. All calls on one index must be for the same body, and `at` must never go back.
    pub(super) fn scan(&mut self, body: &[u8], at: usize, precision: Precision, sink: impl FnMut(Line)) -> usize {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
            // SAFETY: the processor was just checked for all features that the function needs.
            return unsafe { self.scan_avx2(body, at, precision, sink) };
        }
        self.scan_with(classify, body, at, precision, sink)
    }

    /// The same, compiled for most servers; without these features a line like telegraf's took 81 ns, not 66.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn scan_avx2(&mut self, body: &[u8], at: usize, precision: Precision, sink: impl FnMut(Line)) -> usize {
        self.scan_with(|block| classes::classify_avx2(block), body, at, precision, sink)
    }

    #[inline(always)]
    fn scan_with(
        &mut self,
        classify: impl Fn(&[u8; 64]) -> Classes,
        body: &[u8],
        mut at: usize,
        precision: Precision,
        mut sink: impl FnMut(Line),
    ) -> usize {
        let safe = number::timestamp_safe(precision);
        let mut words = [0; TAGS_MAX];
        if at >= self.end {
            self.fill(&classify, body, at);
        }
        loop {
            let window = &body[self.base..self.end];
            let stopped = loop {
                match self.line(window, at - self.base, &mut words, precision, safe) {
                    Ok(mut line) => {
                        let base = self.base as u32;
                        at = self.base + line.end as usize + 1;
                        line.start += base;
                        line.end += base;
                        line.measurement_end += base;
                        line.fields_end += base;
                        sink(line);
                    }
                    Err(declined) => break declined,
                }
            };
            match stopped {
                Declined::Cut if at > self.base && self.end < body.len() => self.fill(&classify, body, at),
                _ => return at,
            }
        }
    }

    /// Indexes the window at `base`.
    #[inline(always)]
    fn fill(&mut self, classify: impl Fn(&[u8; 64]) -> Classes, body: &[u8], base: usize) {
        self.base = base;
        self.end = body.len().min(base + WINDOW_BYTES);
        let window = &body[base..self.end];
        let (blocks, tail) = window.as_chunks::<64>();
        let mut high = 0;
        for ((block, stops), digits) in blocks.iter().zip(&mut self.stops).zip(&mut self.digits) {
            let classes = classify(block);
            (*stops, *digits) = (classes.stops, classes.digits);
            high |= classes.high;
        }
        let mut block = [0; 64];
        block[..tail.len()].copy_from_slice(tail);
        let classes = classify(&block);
        self.stops[blocks.len()] = classes.stops | 1 << tail.len();
        self.digits[blocks.len()] = classes.digits;
        self.has_high = (high | classes.high) != 0;
    }

    /// Bits of `digits` from `at` on, 64 of them.
    #[inline(always)]
    fn digits_from(&self, at: usize) -> u64 {
        let (word, bit) = (at / 64, at % 64);
        let next = self.digits.get(word + 1).copied().unwrap_or(0);
        self.digits[word] >> bit | next << 1 << (63 - bit)
    }

    /// Parses the line at `start`; offsets are those of the window.
    #[inline(always)]
    fn line(
        &self,
        window: &[u8],
        start: usize,
        words: &mut [u64; TAGS_MAX],
        precision: Precision,
        safe: (usize, u8),
    ) -> Result<Line, Declined> {
        let mut stops = Stops::from(self, start);
        let (measurement_end, mut byte) = stops.bare(window)?;
        if measurement_end == start || matches!(window[start], b'\t' | 0 | b'#') {
            return Err(Declined::Odd);
        }
        let mut at = measurement_end;
        let mut keys = Keys { words, count: 0, bloom: 0 };
        while byte == b',' {
            let key = at + 1;
            let (equals, found) = stops.bare(window)?;
            if found != b'=' || equals == key || !keys.insert(window, key, equals) {
                return Err(Declined::Odd);
            }
            (at, byte) = stops.bare(window)?;
            if at == equals + 1 {
                return Err(Declined::Odd);
            }
        }
        if byte != b' ' {
            return Err(Declined::Odd);
        }
        loop {
            let key = at + 1;
            let (equals, found) = stops.bare(window)?;
            if found != b'=' || equals == key {
                return Err(Declined::Odd);
            }
            // InfluxDB accepts any bytes in tags and strings, but in field keys and measurements invalid UTF-8 damages
            // it.
            if self.has_high && !window[key..equals].is_ascii() {
                return Err(Declined::Odd);
            }
            at = stops.next();
            byte = byte_at(window, at)?;
            if byte == b'"' && at == equals + 1 {
                let close = stops.closing_quote(window)?;
                at = stops.next();
                byte = byte_at(window, at)?;
                if at != close + 1 {
                    return Err(Declined::Odd);
                }
            } else if !self.is_value(window, equals + 1, at) {
                return Err(Declined::Odd);
            }
            if byte != b',' {
                break;
            }
        }
        let fields_end = at;
        if byte == b' ' {
            at = stops.next();
            byte = byte_at(window, at)?;
            if !self.is_timestamp(window, fields_end + 1, at, precision, safe) {
                return Err(Declined::Odd);
            }
        }
        if byte != b'\n' {
            return Err(Declined::Odd);
        }
        if self.has_high && !window[start..measurement_end].is_ascii() {
            return Err(Declined::Odd);
        }
        Ok(Line {
            start: start as u32,
            end: at as u32,
            measurement_end: measurement_end as u32,
            fields_end: fields_end as u32,
            has_timestamp: at != fields_end,
        })
    }

    #[inline(always)]
    fn is_value(&self, window: &[u8], start: usize, end: usize) -> bool {
        let bytes = end - start;
        if bytes == 0 || bytes > 64 {
            return false;
        }
        let negative = usize::from(window[start] == b'-');
        let others = (!self.digits_from(start) & u64::MAX >> (64 - bytes)) >> negative;
        let bytes_unsigned = bytes - negative;
        if others == 0 {
            return bytes_unsigned > 0;
        }
        if others & (others - 1) == 0 && bytes_unsigned > 1 {
            let other = others.trailing_zeros() as usize;
            match window[start + negative + other] {
                b'.' => return true,
                b'i' if other + 1 == bytes_unsigned && other <= number::SAFE_DIGITS => return true,
                _ => {}
            }
        }
        is_rare_value(&window[start..end])
    }

    #[inline(always)]
    fn is_timestamp(&self, window: &[u8], start: usize, end: usize, precision: Precision, safe: (usize, u8)) -> bool {
        let bytes = end - start;
        if bytes == 0 || bytes > 64 {
            return false;
        }
        let negative = usize::from(window[start] == b'-');
        let others = (!self.digits_from(start) & u64::MAX >> (64 - bytes)) >> negative;
        let digits = bytes - negative;
        if others != 0 || digits == 0 {
            return false;
        }
        let (safe_digits, safe_first) = safe;
        digits < safe_digits
            || (digits == safe_digits && window[start + negative] <= safe_first)
            || number::timestamp(&window[start..end], start, precision).is_ok()
    }
}

/// Exponents, long integers, booleans, and what is not a value.
#[inline(never)]
fn is_rare_value(text: &[u8]) -> bool {
    match text[0] {
        b'0'..=b'9' | b'-' | b'.' => number::number(text, 0).is_ok(),
        _ => number::is_boolean(text),
    }
}

/// The byte at a stop; there is none at the stop after the window.
#[inline(always)]
fn byte_at(window: &[u8], at: usize) -> Result<u8, Declined> {
    window.get(at).copied().ok_or(Declined::Cut)
}

/// Goes from stop to stop.
#[derive(Clone, Copy)]
struct Stops<'a> {
    words: &'a [u64; WORDS + 1],
    word: usize,
    bits: u64,
}

impl<'a> Stops<'a> {
    #[inline(always)]
    fn from(index: &'a Index, at: usize) -> Self {
        Self { words: &index.stops, word: at / 64, bits: index.stops[at / 64] & u64::MAX << (at % 64) }
    }

    /// The next stop. After the last one, which lies after the window: an offset beyond it.
    #[inline(always)]
    fn next(&mut self) -> usize {
        while self.bits == 0 {
            self.word += 1;
            match self.words.get(self.word) {
                Some(&bits) => self.bits = bits,
                None => return WINDOW_BYTES,
            }
        }
        let at = self.word * 64 + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        at
    }

    /// The next stop of measurement, tags or field key that is not escaped, and its byte.
    #[inline(always)]
    fn bare(&mut self, window: &[u8]) -> Result<(usize, u8), Declined> {
        let at = self.next();
        let byte = byte_at(window, at)?;
        if byte != b'\\' {
            return Ok((at, byte));
        }
        let (stops, at, byte) = self.bare_behind(window, at)?;
        *self = stops;
        Ok((at, byte))
    }

    /// The same from the backslash at `backslash` on. By value, so that the state stays in registers elsewhere.
    #[inline(never)]
    fn bare_behind(mut self, window: &[u8], mut backslash: usize) -> Result<(Self, usize, u8), Declined> {
        loop {
            let mut at = self.next();
            let mut byte = byte_at(window, at)?;
            if at == backslash + 1 {
                // The parsers agree only on these three; a line with another stop after a backslash is not plain.
                if !matches!(byte, b',' | b' ' | b'=') {
                    return Err(Declined::Odd);
                }
                at = self.next();
                byte = byte_at(window, at)?;
            }
            if byte != b'\\' {
                return Ok((self, at, byte));
            }
            backslash = at;
        }
    }

    /// The quote that ends the string just opened. Here a backslash escapes any byte.
    #[inline(always)]
    fn closing_quote(&mut self, window: &[u8]) -> Result<usize, Declined> {
        let mut at = self.next();
        loop {
            match byte_at(window, at)? {
                b'"' => return Ok(at),
                b'\\' => {
                    let backslash = at;
                    at = self.next();
                    if at != backslash + 1 {
                        continue;
                    }
                    byte_at(window, at)?;
                }
                _ => {}
            }
            at = self.next();
        }
    }
}

/// Tag keys of one line, each as a word made of its first and last bytes.
struct Keys<'a> {
    /// Kept from line to line, since clearing it would cost as much as using it.
    words: &'a mut [u64; TAGS_MAX],
    count: usize,
    /// One bit for each word, to skip most comparisons.
    bloom: u64,
}

impl Keys<'_> {
    /// False if the key may be a repeated one, or there are too many.
    #[inline(always)]
    fn insert(&mut self, window: &[u8], start: usize, end: usize) -> bool {
        let bytes = end - start;
        let word = if bytes >= 8 {
            // A key of 16 bytes or less is covered completely; longer ones may look equal and are compared by `parse`.
            let last = word_at(window, end - 8);
            word_at(window, start) ^ last.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bytes as u64
        } else {
            word_at(window, start) & ((1 << (8 * bytes)) - 1)
        };
        let bit = 1 << (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
        if self.bloom & bit != 0 && self.words[..self.count].contains(&word) {
            return false;
        }
        if self.count == TAGS_MAX {
            return false;
        }
        self.bloom |= bit;
        self.words[self.count] = word;
        self.count += 1;
        true
    }
}

/// Eight bytes from `at` on; zero after the window.
#[inline(always)]
fn word_at(window: &[u8], at: usize) -> u64 {
    match window[at..].first_chunk() {
        Some(&bytes) => u64::from_le_bytes(bytes),
        None => {
            let mut bytes = [0; 8];
            let tail = &window[at..];
            bytes[..tail.len()].copy_from_slice(tail);
            u64::from_le_bytes(bytes)
        }
    }
}
