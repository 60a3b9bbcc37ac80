//! The unit of timestamps in a request.

/// Unit of a request's timestamps. It is kept with each record; timestamps are not rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Precision {
    Nanosecond = 0,
    Microsecond = 1,
    Millisecond = 2,
    Second = 3,
    Minute = 4,
    Hour = 5,
}

impl Precision {
    pub const ALL: [Self; 6] =
        [Self::Nanosecond, Self::Microsecond, Self::Millisecond, Self::Second, Self::Minute, Self::Hour];

    /// Reads the `precision` parameter of `/write`: empty, `n`, `ns`, `u`, `ms`, `s`, `m` or `h`.
    ///
    /// InfluxDB 1.6 silently takes any other value as nanoseconds, which stores points at a wrong time. Here another
    /// value is the client's error.
    pub fn from_param(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"" | b"n" | b"ns" => Self::Nanosecond,
            b"u" => Self::Microsecond,
            b"ms" => Self::Millisecond,
            b"s" => Self::Second,
            b"m" => Self::Minute,
            b"h" => Self::Hour,
            _ => return None,
        })
    }

    /// Reads the `precision` parameter of `/api/v2/write`: empty, `ns`, `us` (also `µ` and `µs`), `ms` or `s`.
    pub fn from_v2(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"" | b"ns" => Self::Nanosecond,
            b"us" | b"\xc2\xb5" | b"\xc2\xb5s" => Self::Microsecond,
            b"ms" => Self::Millisecond,
            b"s" => Self::Second,
            _ => return None,
        })
    }

    /// Reads the `precision` parameter of `/api/v3/write_lp`, short or long. `auto` and none: see
    /// [`Precision::of_magnitude`].
    pub fn from_v3(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"ns" | b"nanosecond" => Self::Nanosecond,
            b"us" | b"microsecond" => Self::Microsecond,
            b"ms" | b"millisecond" => Self::Millisecond,
            b"s" | b"second" => Self::Second,
            _ => return None,
        })
    }

    /// The unit in which a timestamp is probably meant, by InfluxDB 3's rule: below 5e9 it is in seconds, below 5e12
    /// in milliseconds, below 5e15 in microseconds, whatever its sign is.
    pub fn of_magnitude(timestamp: i64) -> Self {
        match timestamp.unsigned_abs() / 1_000_000_000 {
            0..5 => Self::Second,
            5..5_000 => Self::Millisecond,
            5_000..5_000_000 => Self::Microsecond,
            _ => Self::Nanosecond,
        }
    }

    /// The parameter value that every InfluxDB 1.x understands.
    pub fn as_param(self) -> &'static str {
        match self {
            Self::Nanosecond => "n",
            Self::Microsecond => "u",
            Self::Millisecond => "ms",
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    /// Nanoseconds in one unit.
    pub fn nanos(self) -> i64 {
        match self {
            Self::Nanosecond => 1,
            Self::Microsecond => 1_000,
            Self::Millisecond => 1_000_000,
            Self::Second => 1_000_000_000,
            Self::Minute => 60_000_000_000,
            Self::Hour => 3_600_000_000_000,
        }
    }

    /// The inverse of `self as u8`, to read records back.
    pub fn from_u8(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_timestamp_tells_its_unit() {
        for (timestamp, want) in [
            (0, Precision::Second),
            (4_999_999_999, Precision::Second),
            (-4_999_999_999, Precision::Second),
            (5_000_000_000, Precision::Millisecond),
            (4_999_999_999_999, Precision::Millisecond),
            (5_000_000_000_000, Precision::Microsecond),
            (4_999_999_999_999_999, Precision::Microsecond),
            (-4_999_999_999_999_999, Precision::Microsecond),
            (5_000_000_000_000_000, Precision::Nanosecond),
            (i64::MAX, Precision::Nanosecond),
            (i64::MIN, Precision::Nanosecond),
        ] {
            assert_eq!(Precision::of_magnitude(timestamp), want, "{timestamp}");
        }
    }
}
