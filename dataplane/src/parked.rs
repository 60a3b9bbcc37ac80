//! Points that a backend does not take now are *parked*: the cursor of the backend moves past them, and a courier of
//! their own delivers them from a cursor of their own. Here: which points.

/// One database, or some of its policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedKey {
    pub db: Box<[u8]>,
    /// As writers name the policies, empty = the default one; None = all of them.
    pub rps: Option<Vec<Box<[u8]>>>,
}

impl ParkedKey {
    /// Whether a record of this database and policy belongs to it.
    pub fn has(&self, db: &[u8], rp: &[u8]) -> bool {
        *self.db == *db && self.rps.as_ref().is_none_or(|rps| rps.iter().any(|own| **own == *rp))
    }

    /// As one word, in ASCII: `db/*`, `db/week` or `db/,autogen`. Bytes other than letters, digits, `-`, `_`, `.` and
    /// `~` are percent-encoded.
    pub fn encode(&self) -> String {
        let rps = match &self.rps {
            None => "*".to_owned(),
            Some(rps) => rps.iter().map(|rp| encoded(rp)).collect::<Vec<_>>().join(","),
        };
        format!("{}/{rps}", encoded(&self.db))
    }

    /// Reads what [`ParkedKey::encode`] has written. None: it is something else.
    pub fn decode(word: &str) -> Option<Self> {
        let (db, rps) = word.split_once('/')?;
        let rps = if rps == "*" { None } else { Some(rps.split(',').map(decoded).collect::<Option<_>>()?) };
        Some(Self { db: decoded(db)?, rps })
    }
}

fn encoded(name: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.iter().map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn decoded(text: &str) -> Option<Box<[u8]>> {
    let mut parts = text.split('%');
    let mut name = parts.next()?.as_bytes().to_vec();
    for part in parts {
        name.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        name.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(db: &[u8], rps: Option<&[&[u8]]>) -> ParkedKey {
        ParkedKey { db: db.into(), rps: rps.map(|rps| rps.iter().map(|&rp| rp.into()).collect()) }
    }

    #[test]
    fn a_key_is_one_word_and_reads_back() {
        for (key, word) in [
            (key(b"telegraf", None), "telegraf/*"),
            (key(b"a b/c", Some(&[b""])), "a%20b%2Fc/"),
            (key(b"db", Some(&[b"", b"autogen"])), "db/,autogen"),
            (key(b"\xff%", Some(&[b"*", b"x,y\n"])), "%FF%25/%2A,x%2Cy%0A"),
            (key(b"", None), "/*"),
        ] {
            assert_eq!(key.encode(), word);
            assert_eq!(ParkedKey::decode(word), Some(key));
        }
        for bad in ["db", "db%/*", "db%4/*", "db%zz/a", "d%\u{e9}/a"] {
            assert_eq!(ParkedKey::decode(bad), None, "{bad}");
        }
    }
}
