//! Reasons why a line is refused, and InfluxDB's text for each.
//!
//! The first group is InfluxDB's own, word for word, since clients and people read it. The second group is ours: lines
//! that InfluxDB's parser accepts and that then crash or damage a server, and lines that would change when grouped with
//! others. Not here: how the text becomes an HTTP answer.

use crate::limits;

/// Why one line is refused. Offsets are into the body given to the scan that reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    MissingMeasurement,
    MissingTagKey,
    MissingTagValue,
    InvalidTagFormat,
    MissingFields,
    DuplicateTags,
    /// The series key, or series key + 4 + field key, has this many bytes.
    KeyTooLong {
        bytes: u32,
    },
    MissingFieldKey,
    MissingFieldValue,
    InvalidFieldFormat,
    UnbalancedQuotes,
    InvalidNumber,
    InvalidBoolean,
    InvalidFloat,
    /// The integer (without its `i`) at `start..end` does not fit 64 bits.
    IntegerRange {
        start: u32,
        end: u32,
    },
    /// The field key at `start..end` has no value.
    InvalidValue {
        start: u32,
        end: u32,
    },
    BadTimestamp,
    /// The timestamp is a lone `-`.
    TimestampSyntax,
    /// The timestamp at `start..end` does not fit 64 bits.
    TimestampRange {
        start: u32,
        end: u32,
    },
    /// The timestamp times its unit is outside the range that InfluxDB can store.
    TimeOutsideRange,
    PointInvalid,

    /// Longer than [`limits::LINE_BYTES_MAX`].
    LineTooLong,
    /// 100, 200, 400, ... tags: InfluxDB before 1.8.10 panics and loses the whole request.
    TagCount {
        tags: u32,
    },
    /// InfluxDB would store a value of a single quote, and exits.
    LoneQuote,
    /// InfluxDB reads a value it cannot store and fails the whole batch of that shard with 500.
    Unstorable,
    /// The shard could not be opened again after a restart.
    MeasurementNotUtf8,
    /// The shard could not be opened again after a restart.
    FieldKeyNotUtf8,
    /// Valid only at the end of a body: among other lines it would join the next one or be cut.
    NotSelfContained,
}

impl Reason {
    /// Whether the text is fluxgate's own: InfluxDB's parser would have accepted the line.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::LineTooLong
                | Self::TagCount { .. }
                | Self::LoneQuote
                | Self::Unstorable
                | Self::MeasurementNotUtf8
                | Self::FieldKeyNotUtf8
                | Self::NotSelfContained
        )
    }

    /// Appends the text after `unable to parse 'LINE': `.
    pub fn describe(self, body: &[u8], out: &mut Vec<u8>) {
        let text: &str = match self {
            Self::MissingMeasurement => "missing measurement",
            Self::MissingTagKey => "missing tag key",
            Self::MissingTagValue => "missing tag value",
            Self::InvalidTagFormat => "invalid tag format",
            Self::MissingFields => "missing fields",
            Self::DuplicateTags => "duplicate tags",
            Self::MissingFieldKey => "missing field key",
            Self::MissingFieldValue => "missing field value",
            Self::InvalidFieldFormat => "invalid field format",
            Self::UnbalancedQuotes => "unbalanced quotes",
            Self::InvalidNumber => "invalid number",
            Self::InvalidBoolean => "invalid boolean",
            Self::InvalidFloat => "invalid float",
            Self::BadTimestamp => "bad timestamp",
            Self::TimestampSyntax => r#"strconv.ParseInt: parsing "-": invalid syntax"#,
            Self::TimeOutsideRange => "time outside range -9223372036854775806 - 9223372036854775806",
            Self::PointInvalid => "point is invalid",
            Self::KeyTooLong { bytes } => {
                let text = format!("max key length exceeded: {bytes} > {}", limits::KEY_BYTES_MAX);
                return out.extend_from_slice(text.as_bytes());
            }
            Self::IntegerRange { start, end } => {
                out.extend_from_slice(b"unable to parse integer ");
                out.extend_from_slice(part(body, start, end));
                out.extend_from_slice(b": ");
                return out_of_range(part(body, start, end), out);
            }
            Self::TimestampRange { start, end } => return out_of_range(part(body, start, end), out),
            Self::InvalidValue { start, end } => {
                out.extend_from_slice(b"invalid value: field-key=");
                return out.extend_from_slice(part(body, start, end));
            }
            Self::LineTooLong => {
                let text = format!("fluxgate: line is longer than {} bytes", limits::LINE_BYTES_MAX);
                return out.extend_from_slice(text.as_bytes());
            }
            Self::TagCount { tags } => {
                let text =
                    format!("fluxgate: exactly {tags} tags crash InfluxDB before 1.8.10; use one more or one less");
                return out.extend_from_slice(text.as_bytes());
            }
            Self::LoneQuote => "fluxgate: InfluxDB would read a value of one lone quote here and exit",
            Self::Unstorable => "fluxgate: InfluxDB would read a value here that it cannot store",
            Self::MeasurementNotUtf8 => {
                "fluxgate: measurement is not valid UTF-8; InfluxDB could not open the shard again after a restart"
            }
            Self::FieldKeyNotUtf8 => {
                "fluxgate: field key is not valid UTF-8; InfluxDB could not open the shard again after a restart"
            }
            Self::NotSelfContained => {
                "fluxgate: line would run into the one behind it; check backslash, quotes and leading blanks"
            }
        };
        out.extend_from_slice(text.as_bytes());
    }
}

fn part(body: &[u8], start: u32, end: u32) -> &[u8] {
    &body[start as usize..end as usize]
}

fn out_of_range(number: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"strconv.ParseInt: parsing \"");
    out.extend_from_slice(number);
    out.extend_from_slice(b"\": value out of range");
}
