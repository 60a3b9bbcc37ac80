//! The messages of remote write and remote read, written and read here once more, without the product's code.

/// Name and value.
pub type Pair = (String, String);

/// One series of a request or an answer: labels, and values with their times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub labels: Vec<Pair>,
    pub samples: Vec<(f64, i64)>,
}

impl Series {
    pub fn new(labels: &[(&str, &str)], samples: &[(f64, i64)]) -> Self {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { labels, samples: samples.to_vec() }
    }

    fn encode(&self) -> Vec<u8> {
        let pair = |(name, value): &Pair| field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
        let sample = |&(value, time): &(f64, i64)| {
            field(2, &[&[0x09], &value.to_le_bytes()[..], &[0x10], &varint(time as u64)].concat())
        };
        self.labels.iter().map(pair).chain(self.samples.iter().map(sample)).collect::<Vec<_>>().concat()
    }
}

/// Type (0 `=`, 1 `!=`, 2 `=~`, 3 `!~`), name and value.
pub type Matcher<'a> = (u8, &'a str, &'a str);

/// A read request of one query.
pub fn read_request(from: i64, to: i64, matchers: &[Matcher<'_>]) -> Vec<u8> {
    let mut query = [&[0x08], &varint(from as u64)[..], &[0x10], &varint(to as u64)].concat();
    for (kind, name, value) in matchers {
        let matcher = [vec![0x08, *kind], field(2, name.as_bytes()), field(3, value.as_bytes())].concat();
        query.extend(field(3, &matcher));
    }
    field(1, &query)
}

/// The series of an answer to a read request.
pub fn answered(block: &[u8]) -> Vec<Series> {
    let message = snap::raw::Decoder::new().decompress_vec(block).unwrap();
    let results = parts(&message);
    assert_eq!(results.len(), 1, "one result for one query");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    for (_, series) in parts(&results[0].1) {
        let mut one = Series::default();
        for (number, part) in parts(&series) {
            let inner = parts(&part);
            let value = |number: u64| inner.iter().find(|part| part.0 == number).map(|part| &part.1[..]);
            if number == 1 {
                one.labels.push((text(value(1).unwrap_or_default()), text(value(2).unwrap_or_default())));
            } else {
                let bits = value(1).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
                let time = value(2).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
                one.samples.push((f64::from_bits(bits), time as i64));
            }
        }
        all.push(one);
    }
    all
}

/// Numbers and values of the fields of a message; a number as eight bytes.
fn parts(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let number = |message: &mut &[u8]| {
        let length = message.iter().position(|byte| *byte < 0x80).unwrap() + 1;
        let bytes = &message[..length];
        *message = &message[length..];
        bytes.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
    };
    let mut all = Vec::new();
    while !message.is_empty() {
        let tag = number(&mut message);
        let value = match tag & 7 {
            0 => number(&mut message).to_le_bytes().to_vec(),
            kind => {
                let length = if kind == 1 { 8 } else { number(&mut message) as usize };
                let value = message[..length].to_vec();
                message = &message[length..];
                value
            }
        };
        all.push((tag >> 3, value));
    }
    all
}

pub fn write_request(series: &[Series]) -> Vec<u8> {
    series.iter().map(|series| field(1, &series.encode())).collect::<Vec<_>>().concat()
}

pub fn snappy(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

pub fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// A string or message as field `number`.
pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(bytes.len() as u64), bytes.to_vec()].concat()
}
