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
