//! Version 1 UUIDs (RFC 9562 section 5.1), as in InfluxDB, for requests that have no id of their own.
//!
//! Unique within a process as long as each worker has its own clock sequence. The caller sets the time about once a
//! second; in between, each id is one tick (100 ns) later than the one before. Only the eight digits that change are
//! written for each id.

use std::time::Duration;

/// Bytes of the text of a UUID.
pub const ID_LEN: usize = 36;

/// From 1582-10-15, where version 1 time begins, to 1970, in ticks of 100 ns.
const TICKS_BEFORE_UNIX: u64 = 0x01b2_1dd2_1381_4000;

#[derive(Debug, Clone)]
pub struct RequestIds {
    ticks: u64,
    text: [u8; ID_LEN],
}

impl RequestIds {
    /// `clock_sequence` distinguishes workers (14 bits are used); `node` is any number for the process.
    pub fn new(clock_sequence: u16, node: [u8; 6]) -> Self {
        let mut ids = Self { ticks: TICKS_BEFORE_UNIX, text: [b'-'; ID_LEN] };
        let [high, low] = (clock_sequence & 0x3fff | 0x8000).to_be_bytes();
        ids.write_hex(19, &[high, low]);
        ids.write_hex(24, &node);
        ids.write_slow();
        ids
    }

    /// Sets the time since 1970. Ids never go back.
    pub fn set_time(&mut self, unix: Duration) {
        let now = TICKS_BEFORE_UNIX.wrapping_add((unix.as_nanos() / 100) as u64);
        if now > self.ticks {
            self.ticks = now;
            self.write_slow();
        }
    }

    /// The next id.
    pub fn next_id(&mut self) -> &[u8; ID_LEN] {
        self.ticks += 1;
        if self.ticks as u32 == 0 {
            self.write_slow();
        }
        self.write_hex(0, &(self.ticks as u32).to_be_bytes());
        &self.text
    }

    /// Writes the part of the time that changes every seven minutes.
    fn write_slow(&mut self) {
        let [_, _, middle @ ..] = ((self.ticks >> 32) as u16 as u32).to_be_bytes();
        let version = (self.ticks >> 48) as u16 & 0x0fff | 0x1000;
        self.write_hex(9, &middle);
        self.write_hex(14, &version.to_be_bytes());
    }

    fn write_hex(&mut self, at: usize, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (pair, byte) in self.text[at..at + 2 * bytes.len()].chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_1_uuids_of_the_time_told() {
        let mut ids = RequestIds::new(0xffff, [1, 2, 3, 4, 5, 0xab]);
        // The instant of RFC 9562, appendix A.1, one tick earlier.
        ids.set_time(Duration::from_nanos(1_645_557_742_000_000_000 - 100));
        assert_eq!(str::from_utf8(ids.next_id()), Ok("c232ab00-9414-11ec-bfff-0102030405ab"));
        assert_eq!(str::from_utf8(ids.next_id()), Ok("c232ab01-9414-11ec-bfff-0102030405ab"));
    }

    #[test]
    fn ids_never_repeat_also_when_the_clock_goes_back_or_the_low_part_overflows() {
        let mut ids = RequestIds::new(1, [0; 6]);
        let before_overflow = (0x01ec_9414_ffff_fff0 - TICKS_BEFORE_UNIX) * 100;
        ids.set_time(Duration::from_nanos(before_overflow));
        let mut seen = std::collections::HashSet::new();
        for n in 0..64 {
            assert!(seen.insert(*ids.next_id()));
            ids.set_time(Duration::from_nanos(before_overflow - n));
        }
        assert!(seen.iter().any(|id| id.starts_with(b"00000000-9415-11ec")));
    }
}
