//! Parses a msgpack document of a backend (<https://github.com/msgpack/msgpack/blob/master/spec.md>), as InfluxDB 1.x
//! writes it.
//!
//! Values become JSON texts: times (extension 5: seconds int64, nanoseconds int32, big endian) become integer
//! nanoseconds; floats always have `.` or `e` (except `NaN`, `inf`, `-inf`); strings are escaped as in Go. Unlike in
//! JSON, a failed statement has no number: it gets the number after the previous result.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use fluxgate_dataplane::http::go_json;

use super::{StatementAnswer, WireError};
use crate::influx::answer::{Answer, Message, Row, Series};
use crate::limits::{MSGPACK_DEPTH_MAX, MSGPACK_RESERVED_MAX, MSGPACK_ROWS_BYTES};

pub const TIME_EXTENSION: i8 = 5;

pub type Read<T> = Result<T, WireError>;

/// Parses one document.
pub fn parse(body: Bytes) -> Read<Vec<StatementAnswer>> {
    let mut reader = MsgpackReader::new(&body);
    let answers = reader.document()?;
    if reader.is_at_end() { Ok(answers) } else { Err(WireError::Malformed) }
}

/// One msgpack value.
#[derive(Debug)]
pub enum MsgpackValue<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Float(f64),
    String(&'a [u8]),
    Array(usize),
    Map(usize),
    Extension(i8, &'a [u8]),
}

/// Reads values one after the other.
#[derive(Debug)]
pub struct MsgpackReader<'a> {
    rest: &'a [u8],
    /// The row being written.
    text: Vec<u8>,
    /// The buffer of rows; one allocation holds many.
    rows: BytesMut,
}

impl<'a> MsgpackReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, text: Vec::new(), rows: BytesMut::new() }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn document(&mut self) -> Read<Vec<StatementAnswer>> {
        let mut answers: Vec<StatementAnswer> = Vec::new();
        for _ in 0..self.map()? {
            match self.string()? {
                b"error" => return Err(WireError::Refused(self.text()?)),
                b"results" => {
                    for _ in 0..self.array()? {
                        let next = answers.last().map_or(0, |last| last.statement_id.saturating_add(1));
                        let answer = self.statement(next)?;
                        answers.push(answer);
                    }
                }
                _ => self.skip(0)?,
            }
        }
        Ok(answers)
    }

    fn statement(&mut self, statement_id: i64) -> Read<StatementAnswer> {
        let mut statement = StatementAnswer { statement_id, answer: Answer::default(), partial: false };
        for _ in 0..self.map()? {
            match self.string()? {
                b"statement_id" => {
                    let MsgpackValue::Int(id) = self.value()? else { return Err(WireError::Malformed) };
                    statement.statement_id = id;
                }
                b"messages" => statement.answer.messages = self.list(Self::message)?,
                b"series" => statement.answer.series = self.list(Self::series)?,
                b"partial" => statement.partial = self.bool()?,
                b"error" => statement.answer.error = Some(self.text()?),
                _ => self.skip(0)?,
            }
        }
        Ok(statement)
    }

    fn message(&mut self) -> Read<Message> {
        let mut message = Message { level: String::new(), text: String::new() };
        for _ in 0..self.map()? {
            match self.string()? {
                b"level" => message.level = self.text()?,
                b"text" => message.text = self.text()?,
                _ => self.skip(0)?,
            }
        }
        Ok(message)
    }

    fn series(&mut self) -> Read<Series> {
        let mut series = Series::default();
        for _ in 0..self.map()? {
            match self.string()? {
                b"name" => series.name = self.text()?,
                b"tags" => {
                    for _ in 0..self.map()? {
                        series.tags.push((self.text()?, self.text()?));
                    }
                    // In msgpack tags come in any order.
                    series.tags.sort_unstable();
                }
                b"columns" => series.columns = self.list(Self::text)?,
                b"values" => series.rows = self.list(Self::row)?,
                b"partial" => series.partial = self.bool()?,
                _ => self.skip(0)?,
            }
        }
        Ok(series)
    }

    fn row(&mut self) -> Read<Row> {
        self.text.clear();
        self.text.push(b'[');
        for column in 0..self.array()? {
            if column > 0 {
                self.text.push(b',');
            }
            let value = self.value()?;
            push_json(&mut self.text, &value)?;
        }
        self.text.push(b']');
        if self.rows.capacity() < self.text.len() {
            // The rest of the last buffer stays unused; the buffer lives as long as its rows.
            self.rows = BytesMut::with_capacity(MSGPACK_ROWS_BYTES.max(self.text.len()));
        }
        self.rows.extend_from_slice(&self.text);
        Ok(Row(self.rows.split().freeze()))
    }

    /// The elements of an array, each read by `element`.
    pub fn list<T>(&mut self, element: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let len = self.array()?;
        let mut elements = Vec::with_capacity(len.min(MSGPACK_RESERVED_MAX));
        for _ in 0..len {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// The number of pairs that follow.
    pub fn map(&mut self) -> Read<usize> {
        if let MsgpackValue::Map(len) = self.value()? { Ok(len) } else { Err(WireError::Malformed) }
    }

    /// The number of elements that follow.
    pub fn array(&mut self) -> Read<usize> {
        if let MsgpackValue::Array(len) = self.value()? { Ok(len) } else { Err(WireError::Malformed) }
    }

    fn bool(&mut self) -> Read<bool> {
        if let MsgpackValue::Bool(bool) = self.value()? { Ok(bool) } else { Err(WireError::Malformed) }
    }

    /// A string, or bytes, unchanged.
    pub fn string(&mut self) -> Read<&'a [u8]> {
        if let MsgpackValue::String(text) = self.value()? { Ok(text) } else { Err(WireError::Malformed) }
    }

    /// A string; invalid UTF-8 is replaced.
    pub fn text(&mut self) -> Read<String> {
        Ok(String::from_utf8_lossy(self.string()?).into_owned())
    }

    /// Skips one value at nesting level `depth`.
    pub fn skip(&mut self, depth: usize) -> Read<()> {
        let elements = match self.value()? {
            MsgpackValue::Array(len) => len,
            // Lengths have 32 bits, so this cannot overflow.
            MsgpackValue::Map(len) => 2 * len,
            _ => 0,
        };
        if elements > 0 && depth == MSGPACK_DEPTH_MAX {
            return Err(WireError::Malformed);
        }
        (0..elements).try_for_each(|_| self.skip(depth + 1))
    }

    /// The next value; for arrays and maps only the number of elements or pairs that follow.
    pub fn value(&mut self) -> Read<MsgpackValue<'a>> {
        let [first] = self.take()?;
        Ok(match first {
            0x00..=0x7f => MsgpackValue::Int(i64::from(first)),
            0x80..=0x8f => MsgpackValue::Map(usize::from(first & 0x0f)),
            0x90..=0x9f => MsgpackValue::Array(usize::from(first & 0x0f)),
            0xa0..=0xbf => MsgpackValue::String(self.bytes(usize::from(first & 0x1f))?),
            0xc0 => MsgpackValue::Nil,
            0xc2 => MsgpackValue::Bool(false),
            0xc3 => MsgpackValue::Bool(true),
            // Bytes (0xc4-0xc6) are taken as text.
            0xc4 | 0xd9 => self.len8().and_then(|len| self.bytes(len)).map(MsgpackValue::String)?,
            0xc5 | 0xda => self.len16().and_then(|len| self.bytes(len)).map(MsgpackValue::String)?,
            0xc6 | 0xdb => self.len32().and_then(|len| self.bytes(len)).map(MsgpackValue::String)?,
            0xc7 => self.len8().and_then(|len| self.extension(len))?,
            0xc8 => self.len16().and_then(|len| self.extension(len))?,
            0xc9 => self.len32().and_then(|len| self.extension(len))?,
            0xca => MsgpackValue::Float(f64::from(f32::from_be_bytes(self.take()?))),
            0xcb => MsgpackValue::Float(f64::from_be_bytes(self.take()?)),
            0xcc => MsgpackValue::Int(i64::from(u8::from_be_bytes(self.take()?))),
            0xcd => MsgpackValue::Int(i64::from(u16::from_be_bytes(self.take()?))),
            0xce => MsgpackValue::Int(i64::from(u32::from_be_bytes(self.take()?))),
            0xcf => MsgpackValue::Unsigned(u64::from_be_bytes(self.take()?)),
            0xd0 => MsgpackValue::Int(i64::from(i8::from_be_bytes(self.take()?))),
            0xd1 => MsgpackValue::Int(i64::from(i16::from_be_bytes(self.take()?))),
            0xd2 => MsgpackValue::Int(i64::from(i32::from_be_bytes(self.take()?))),
            0xd3 => MsgpackValue::Int(i64::from_be_bytes(self.take()?)),
            0xd4..=0xd8 => self.extension(1 << (first - 0xd4))?,
            0xdc => MsgpackValue::Array(self.len16()?),
            0xdd => MsgpackValue::Array(self.len32()?),
            0xde => MsgpackValue::Map(self.len16()?),
            0xdf => MsgpackValue::Map(self.len32()?),
            0xe0..=0xff => MsgpackValue::Int(i64::from(first as i8)),
            0xc1 => return Err(WireError::Malformed),
        })
    }

    fn extension(&mut self, len: usize) -> Read<MsgpackValue<'a>> {
        let [kind] = self.take()?;
        Ok(MsgpackValue::Extension(kind as i8, self.bytes(len)?))
    }

    fn len8(&mut self) -> Read<usize> {
        Ok(usize::from(u8::from_be_bytes(self.take()?)))
    }

    fn len16(&mut self) -> Read<usize> {
        Ok(usize::from(u16::from_be_bytes(self.take()?)))
    }

    fn len32(&mut self) -> Read<usize> {
        Ok(u32::from_be_bytes(self.take()?) as usize)
    }

    fn take<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn bytes(&mut self, len: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(WireError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn push_json(out: &mut Vec<u8>, value: &MsgpackValue<'_>) -> Read<()> {
    match *value {
        MsgpackValue::Nil => out.extend_from_slice(b"null"),
        MsgpackValue::String(text) => go_json::push_string(out, text),
        MsgpackValue::Bool(bool) => push(out, format_args!("{bool}")),
        MsgpackValue::Int(n) => push(out, format_args!("{n}")),
        MsgpackValue::Unsigned(n) => push(out, format_args!("{n}")),
        // Unlike `{}`, always with a point or an exponent.
        MsgpackValue::Float(x) => push(out, format_args!("{x:?}")),
        MsgpackValue::Extension(TIME_EXTENSION, bytes) => push(out, format_args!("{}", nanoseconds(bytes)?)),
        MsgpackValue::Extension(..) | MsgpackValue::Array(_) | MsgpackValue::Map(_) => {
            return Err(WireError::Malformed);
        }
    }
    Ok(())
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory takes everything");
}

/// The time in a time extension.
pub fn nanoseconds(bytes: &[u8]) -> Read<i64> {
    let (seconds, rest) = bytes.split_first_chunk().ok_or(WireError::Malformed)?;
    let rest = rest.try_into().map_err(|_| WireError::Malformed)?;
    let (seconds, nanoseconds) = (i64::from_be_bytes(*seconds), i32::from_be_bytes(rest));
    // Summed in 128 bits: the seconds of the earliest times overflow alone.
    let whole = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    i64::try_from(whole).map_err(|_| WireError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of InfluxDB 1.6.7 to `select sqrt(v) from bs; select * from foo.bar`, with messages and marks added.
    const BODY: &[u8] =
        b"\x81\xa7results\x92\x84\xacstatement_id\x00\xa8messages\x91\x82\xa5level\xa7warning\xa4text\xa3old\
        \xa6series\x91\x85\xa4name\xa2bs\xa4tags\x82\xa1b\xa1y\xa1a\xa0\xa7columns\x92\xa4time\xa4sqrt\
        \xa6values\x92\x92\xc7\x0c\x05\0\0\0\0\0\0\0\0\0\0\0\x01\xcb\x3f\xf0\0\0\0\0\0\0\
        \x92\xc7\x0c\x05\0\0\0\0\0\0\0\0\0\0\0\x03\xc0\xa7partial\xc3\xa7partial\xc3\
        \x81\xa5error\xa2no";

    fn parsed(body: &[u8]) -> Read<Vec<StatementAnswer>> {
        parse(Bytes::copy_from_slice(body))
    }

    #[test]
    fn all_parts_of_an_answer_are_read() {
        let answers = parsed(BODY).unwrap();
        let series = Series {
            name: "bs".into(),
            tags: vec![("a".into(), "".into()), ("b".into(), "y".into())],
            columns: vec!["time".into(), "sqrt".into()],
            rows: vec![Row::of(["1", "1.0"]), Row::of(["3", "null"])],
            partial: true,
            ..Series::default()
        };
        let messages = vec![Message { level: "warning".into(), text: "old".into() }];
        let answer = Answer { series: vec![series], messages, error: None };
        let failed = StatementAnswer { statement_id: 1, answer: Answer::failed("no"), partial: false };
        assert_eq!(answers, [StatementAnswer { statement_id: 0, answer, partial: true }, failed]);
        assert_eq!(parsed(b"\x81\xa5error\xa2no"), Err(WireError::Refused("no".into())));
        assert_eq!(parsed(b"\x81\xa7results\x90"), Ok(Vec::new()));
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_or_goes_on_is_malformed() {
        for len in 0..BODY.len() {
            assert_eq!(parsed(&BODY[..len]), Err(WireError::Malformed), "{len} bytes");
        }
        assert_eq!(parsed(&[BODY, b"\xc0"].concat()), Err(WireError::Malformed));
    }

    fn row(values: &[&[u8]]) -> Read<String> {
        let body = [
            b"\x81\xa7results\x91\x81\xa6series\x91\x81\xa6values\x91",
            &[0x90 | values.len() as u8][..],
            &values.concat(),
        ];
        parsed(&body.concat()).map(|answers| answers[0].answer.series[0].rows[0].text().to_owned())
    }

    #[test]
    fn each_form_of_a_value_becomes_its_json_text() {
        for (bytes, want) in [
            (&b"\x7f"[..], "127"),
            (b"\xe0", "-32"),
            (b"\xcc\xff", "255"),
            (b"\xcd\xff\xff", "65535"),
            (b"\xce\xff\xff\xff\xff", "4294967295"),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
            (b"\xd0\x80", "-128"),
            (b"\xd1\x80\x00", "-32768"),
            (b"\xd2\x80\x00\x00\x00", "-2147483648"),
            (b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808"),
            (b"\xca\x3f\x00\x00\x00", "0.5"),
            (b"\xcb\x7e\x37\xe4\x3c\x88\x00\x75\x9c", "1e300"),
            (b"\xcb\x80\x00\x00\x00\x00\x00\x00\x00", "-0.0"),
            (b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", "NaN"),
            (b"\xc2", "false"),
            (b"\xc3", "true"),
            (b"\xa5<\"\n\xc3\xa9", "\"\\u003c\\\"\\né\""),
            (b"\xa1\xff", "\"\\ufffd\""),
            (b"\xd9\x01a", "\"a\""),
            (b"\xda\x00\x01a", "\"a\""),
            (b"\xdb\x00\x00\x00\x01a", "\"a\""),
            (b"\xc7\x0c\x05\xff\xff\xff\xff\xff\xff\xff\xff\x3b\x9a\xc9\xfb", "-5"),
            // The earliest time of InfluxDB: the seconds alone do not fit.
            (b"\xc7\x0c\x05\xff\xff\xff\xfd\xda\x3e\x82\xfb\x08\xa7\xf2\x02", "-9223372036854775806"),
        ] {
            let twice = format!("[{want},{want}]");
            assert_eq!(row(&[bytes, bytes]).as_deref(), Ok(twice.as_str()), "{}", bytes.escape_ascii());
        }
        for bytes in
            [&b"\x90"[..], b"\x80", b"\xc1", b"\xd4\x01x", b"\xc7\x0b\x05xxxxxxxxxxx", b"\xc7\x0c\x05\x7fxxxxxxxxxxx"]
        {
            assert_eq!(row(&[bytes]), Err(WireError::Malformed), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn rows_larger_than_one_buffer_stay_separate() {
        let text = [&b"\xdb"[..], &50_000u32.to_be_bytes(), &[b'x'; 50_000]].concat();
        let body = b"\x81\xa7results\x91\x81\xa6series\x91\x81\xa6values\x93".to_vec();
        let body = [body, b"\x91\x01".to_vec(), [&b"\x92"[..], &text, &text].concat(), b"\x91\x02".to_vec()].concat();
        let rows = parsed(&body).unwrap().remove(0).answer.series.remove(0).rows;
        let lens: Vec<_> = rows.iter().map(|row| row.0.len()).collect();
        assert_eq!(lens, [3, 100_007, 3]);
        assert_eq!((rows[0].text(), rows[2].text()), ("[1]", "[2]"));
    }

    #[test]
    fn false_lengths_and_depths_take_no_memory() {
        for values in [&b"\xdd\xff\xff\xff\xff"[..], b"\xdd\xff\xff\xff\xff\x91\x01"] {
            let body = [&b"\x81\xa7results\x91\x81\xa6series\x91\x81\xa6values"[..], values].concat();
            assert_eq!(parsed(&body), Err(WireError::Malformed));
        }
        let nested = |depth| [&b"\x82\xa1x"[..], &vec![0x91; depth], b"\x01\xa7results\x90"].concat();
        assert_eq!(parsed(&nested(MSGPACK_DEPTH_MAX)), Ok(Vec::new()));
        assert_eq!(parsed(&nested(MSGPACK_DEPTH_MAX + 1)), Err(WireError::Malformed));
        assert_eq!(parsed(&nested(1_000_000)), Err(WireError::Malformed));
    }
}
