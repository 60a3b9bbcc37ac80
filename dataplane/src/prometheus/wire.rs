//! Protobuf as InfluxDB 1.6.7 reads it: the same bytes are a message, and the others are refused in the same words.
//!
//! Not here: what the fields mean.

use std::fmt;

/// Why bytes are no message. The texts are InfluxDB's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    UnexpectedEnd,
    Overflow,
    NegativeLength,
    IllegalType(u8),
    EndGroup { message: &'static str },
    IllegalTag { message: &'static str, number: i32, tag: u64 },
    WrongType { field: &'static str, wire_type: u8 },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedEnd => f.write_str("unexpected EOF"),
            Self::Overflow => f.write_str("proto: integer overflow"),
            Self::NegativeLength => f.write_str("proto: negative length found during unmarshaling"),
            Self::IllegalType(wire_type) => write!(f, "proto: illegal wireType {wire_type}"),
            Self::EndGroup { message } => write!(f, "proto: {message}: wiretype end group for non-group"),
            Self::IllegalTag { message, number, tag } => {
                write!(f, "proto: {message}: illegal tag {number} (wire type {tag})")
            }
            Self::WrongType { field, wire_type } => write!(f, "proto: wrong wireType = {wire_type} for field {field}"),
        }
    }
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// Appends a field whose value is a string, bytes, or a message.
pub fn push_message(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(number << 3 | BYTES);
    push_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub fn push_number(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3 | VARINT);
    push_varint(out, value);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Number and wire type of a field whose value comes next.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    pub number: i32,
    wire_type: u8,
}

impl Tag {
    fn expect(self, wire_type: u8, field: &'static str) -> Result<(), WireError> {
        if self.wire_type == wire_type {
            Ok(())
        } else {
            Err(WireError::WrongType { field, wire_type: self.wire_type })
        }
    }
}

/// Reads the fields of one message, in the order in which they were sent. After an error it must not be used.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field; None: the message ends here. `message` is its name, for errors.
    pub fn tag(&mut self, message: &'static str) -> Result<Option<Tag>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let (number, wire_type) = ((tag >> 3) as i32, (tag & 7) as u8);
        if wire_type == GROUP_END {
            return Err(WireError::EndGroup { message });
        }
        if number <= 0 {
            return Err(WireError::IllegalTag { message, number, tag });
        }
        Ok(Some(Tag { number, wire_type }))
    }

    /// A value of the types `string`, `bytes`, or a message. `field` is its name, for errors.
    pub fn bytes(&mut self, tag: Tag, field: &'static str) -> Result<&'a [u8], WireError> {
        tag.expect(BYTES, field)?;
        self.counted()
    }

    pub fn integer(&mut self, tag: Tag, field: &'static str) -> Result<i64, WireError> {
        tag.expect(VARINT, field)?;
        Ok(self.varint()? as i64)
    }

    pub fn double(&mut self, tag: Tag, field: &'static str) -> Result<f64, WireError> {
        tag.expect(FIXED64, field)?;
        let bytes = self.take(8)?.try_into().expect("eight were asked for");
        Ok(f64::from_le_bytes(bytes))
    }

    /// Passes over a value that nobody wants. Groups may be nested to any depth.
    pub fn skip(&mut self, tag: Tag) -> Result<(), WireError> {
        let mut wire_type = tag.wire_type;
        let mut depth = 0_usize;
        loop {
            match wire_type {
                VARINT => _ = self.varint()?,
                FIXED64 => _ = self.take(8)?,
                BYTES => _ = self.counted()?,
                GROUP => depth += 1,
                GROUP_END => depth -= 1,
                FIXED32 => _ = self.take(4)?,
                other => return Err(WireError::IllegalType(other)),
            }
            if depth == 0 {
                return Ok(());
            }
            wire_type = (self.varint()? & 7) as u8;
        }
    }

    fn counted(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.varint()?;
        match usize::try_from(length as i64) {
            Ok(length) => self.take(length),
            Err(_) => Err(WireError::NegativeLength),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::UnexpectedEnd)?;
        self.rest = rest;
        Ok(taken)
    }

    /// At most ten bytes; bits beyond the 64th are dropped.
    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(WireError::UnexpectedEnd)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Overflow)
    }
}
