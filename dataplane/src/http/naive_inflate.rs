//! Decodes deflate data bit by bit, in the order in which Go's `compress/flate` reads bytes, to check the offset of a
//! fault. The fast decoder reads ahead; its offset must still be the one that InfluxDB's clients see.

const LENGTHS_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

#[derive(Debug, PartialEq, Eq)]
pub enum InflateFault {
    Cut,
    /// After this many bytes.
    Corrupt(usize),
}

/// Decompresses the deflate data at the front of `data`. Returns the bytes, and how many were read.
pub fn inflate(data: &[u8]) -> Result<(Vec<u8>, usize), InflateFault> {
    let mut reader = BitReader { data, at: 0, bits: 0, bit_count: 0, out: Vec::new() };
    loop {
        reader.need(3)?;
        let last = reader.take(1)? == 1;
        match reader.take(2)? {
            0 => reader.stored()?,
            1 => {
                let literals: Vec<u8> = [(8, 144), (9, 112), (7, 24), (8, 8)]
                    .iter()
                    .flat_map(|&(len, count)| std::iter::repeat_n(len, count))
                    .collect();
                let codes = (Codes::new(&literals).unwrap(), None);
                reader.compressed(codes)?;
            }
            2 => {
                let codes = reader.dynamic_codes()?;
                reader.compressed(codes)?;
            }
            _ => return Err(reader.corrupt()),
        }
        if last {
            return Ok((reader.out, reader.at));
        }
    }
}

/// Lengths of the codes of each symbol, and the codes.
struct Codes {
    codes: Vec<(u8, u16)>,
    shortest: u8,
}

impl Codes {
    /// None: the lengths are not a complete code.
    fn new(lengths: &[u8]) -> Option<Self> {
        let longest = *lengths.iter().max()?;
        let mut codes = vec![(0, 0); lengths.len()];
        let mut next = 0u32;
        for len in 1..=longest {
            next <<= 1;
            for (symbol, _) in lengths.iter().enumerate().filter(|&(_, &l)| l == len) {
                codes[symbol] = (len, next as u16);
                next += 1;
            }
        }
        let complete = longest == 0 || next == 1 << longest || (next == 1 && longest == 1);
        let shortest = lengths.iter().copied().filter(|&len| len > 0).min().unwrap_or(0);
        complete.then_some(Self { codes, shortest })
    }

    /// The symbol whose code starts these bits, and its length.
    fn find(&self, bits: u64) -> Option<(usize, u8)> {
        self.codes.iter().enumerate().find_map(|(symbol, &(len, code))| {
            let reversed = u64::from(code.reverse_bits()) >> (16 - u32::from(len).min(16));
            (len > 0 && bits & ((1 << len) - 1) == reversed).then_some((symbol, len))
        })
    }
}

struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
    bits: u64,
    bit_count: u8,
    out: Vec<u8>,
}

impl BitReader<'_> {
    fn corrupt(&self) -> InflateFault {
        InflateFault::Corrupt(self.at)
    }

    fn need(&mut self, count: u8) -> Result<(), InflateFault> {
        while self.bit_count < count {
            self.bits |= u64::from(*self.data.get(self.at).ok_or(InflateFault::Cut)?) << self.bit_count;
            self.bit_count += 8;
            self.at += 1;
        }
        Ok(())
    }

    fn take(&mut self, count: u8) -> Result<usize, InflateFault> {
        self.need(count)?;
        let value = self.bits & ((1 << count) - 1);
        self.bits >>= count;
        self.bit_count -= count;
        Ok(value as usize)
    }

    fn symbol(&mut self, codes: &Codes) -> Result<usize, InflateFault> {
        let mut want = codes.shortest;
        loop {
            self.need(want)?;
            let (symbol, len) = codes.find(self.bits).ok_or(self.corrupt())?;
            if len <= self.bit_count {
                self.take(len)?;
                return Ok(symbol);
            }
            want = len;
        }
    }

    fn stored(&mut self) -> Result<(), InflateFault> {
        (self.bits, self.bit_count) = (0, 0);
        let header = self.data.get(self.at..self.at + 4).ok_or(InflateFault::Cut)?;
        self.at += 4;
        let len = u16::from_le_bytes([header[0], header[1]]);
        if u16::from_le_bytes([header[2], header[3]]) != !len {
            return Err(self.corrupt());
        }
        let end = self.at + usize::from(len);
        self.out.extend_from_slice(self.data.get(self.at..end).ok_or(InflateFault::Cut)?);
        self.at = end;
        Ok(())
    }

    fn dynamic_codes(&mut self) -> Result<(Codes, Option<Codes>), InflateFault> {
        self.need(14)?;
        let (literals, distances, lengths) = (self.take(5)? + 257, self.take(5)? + 1, self.take(4)? + 4);
        if literals > 286 || distances > 30 {
            return Err(self.corrupt());
        }
        let mut code_lengths = [0; 19];
        for &place in &LENGTHS_ORDER[..lengths] {
            code_lengths[place] = self.take(3)? as u8;
        }
        let codes = Codes::new(&code_lengths).ok_or(self.corrupt())?;
        let mut all = Vec::new();
        while all.len() < literals + distances {
            let (value, repeat) = match self.symbol(&codes)? {
                16 => (*all.last().ok_or(self.corrupt())?, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                len => (len as u8, 1),
            };
            all.extend(std::iter::repeat_n(value, repeat));
        }
        if all.len() > literals + distances {
            return Err(self.corrupt());
        }
        let (literals, distances) = all.split_at(literals);
        let mut codes = Codes::new(literals).ok_or(self.corrupt())?;
        // Every block contains the end-of-block code, so at least that many bits may be requested.
        codes.shortest = codes.shortest.max(literals[256]);
        Ok((codes, Some(Codes::new(distances).ok_or(self.corrupt())?)))
    }

    fn compressed(&mut self, (literals, distances): (Codes, Option<Codes>)) -> Result<(), InflateFault> {
        loop {
            let symbol = self.symbol(&literals)?;
            let (base, extra) = match symbol {
                0..=255 => {
                    self.out.push(symbol as u8);
                    continue;
                }
                256 => return Ok(()),
                257..=264 => (symbol - 254, 0),
                265..=284 => {
                    let extra = (symbol - 261) / 4;
                    (3 + ((4 + (symbol - 261) % 4) << extra), extra)
                }
                285 => (258, 0),
                _ => return Err(self.corrupt()),
            };
            let length = base + self.take(extra as u8)?;
            let symbol = match &distances {
                None => (self.take(5)? as u8).reverse_bits() as usize >> 3,
                Some(codes) => self.symbol(codes)?,
            };
            let distance = match symbol {
                0..=3 => symbol + 1,
                4..=29 => {
                    let extra = (symbol - 2) / 2;
                    1 + ((2 + symbol % 2) << extra) + self.take(extra as u8)?
                }
                _ => return Err(self.corrupt()),
            };
            if distance > self.out.len().min(32_768) {
                return Err(self.corrupt());
            }
            for _ in 0..length {
                self.out.push(self.out[self.out.len() - distance]);
            }
        }
    }
}
