//! The version of InfluxDB that answers name (`X-Influxdb-Version`): clients decide by it what a server can do. It is
//! the lowest of the backends that are up, since a query may be answered by any of them.
//!
//! Not here: who asks the backends (the control thread's probes).

use std::fmt;

/// Named until a backend has told its own: the oldest version that fluxgate is tested with.
pub const OLDEST: InfluxVersion = InfluxVersion { major: 1, minor: 6, patch: 7 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InfluxVersion {
    major: u16,
    minor: u16,
    patch: u16,
}

impl InfluxVersion {
    /// Reads what a server says of itself: `1.6.7~rc0`, `v1.8.10`, `2.7.1`. None: it names no number.
    pub fn read(text: &str) -> Option<Self> {
        let mut numbers = text.trim_start_matches('v').splitn(3, '.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        });
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some(Self { major, minor, patch: numbers.next().flatten().unwrap_or(0) })
    }

    /// In one number, for a counter; never 0.
    pub fn pack(self) -> u64 {
        1 << 48 | u64::from(self.major) << 32 | u64::from(self.minor) << 16 | u64::from(self.patch)
    }

    /// The inverse; None for 0.
    pub fn unpack(packed: u64) -> Option<Self> {
        let part = |shift: u32| (packed >> shift) as u16;
        (packed != 0).then(|| Self { major: part(32), minor: part(16), patch: part(0) })
    }
}

impl fmt::Display for InfluxVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_their_numbers() {
        for (text, want) in [
            ("1.6.7~rc0", Some("1.6.7")),
            ("v1.8.10", Some("1.8.10")),
            ("2.7.1", Some("2.7.1")),
            ("1.8", Some("1.8.0")),
            ("1.8.x-abc", Some("1.8.0")),
            ("1.7.9-c1.7.9", Some("1.7.9")),
            ("unknown", None),
            ("", None),
            ("1", None),
            ("1.99999.0", None),
        ] {
            let got = InfluxVersion::read(text);
            assert_eq!(got.map(|version| version.to_string()).as_deref(), want, "{text}");
            assert_eq!(got.and_then(|version| InfluxVersion::unpack(version.pack())), got);
        }
        assert_eq!(InfluxVersion::unpack(0), None);
        assert!(InfluxVersion::read("1.10.0") > InfluxVersion::read("1.9.9"));
    }
}
