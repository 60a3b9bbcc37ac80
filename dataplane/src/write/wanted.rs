//! The parameters of a write: where the points go and in which unit their times are, as each API names them. The
//! parameter `consistency` is the same for all.

use crate::http::query;
use crate::precision::Precision;
use crate::prometheus::lines;
use crate::request::api::Api;
use crate::request::reject::Reject;

/// What a request asks for.
#[derive(Debug)]
pub struct Wanted {
    pub db: Vec<u8>,
    /// Empty = the default policy.
    pub rp: Vec<u8>,
    /// A wrong one is refused only after the database has been checked.
    pub precision: Result<Precision, Reject>,
}

impl Wanted {
    /// Reads the query string.
    ///
    /// # Errors
    /// When the bucket of version 2 names no database, or Prometheus none at all.
    pub fn read(api: Api, params: &[u8]) -> Result<Self, Reject> {
        let param = |key| query::first(params, key).unwrap_or_default();
        let precision = param("precision");
        let unit = |read: fn(&[u8]) -> Option<Precision>, known| {
            read(&precision).ok_or_else(|| Reject::Precision { given: precision.to_vec(), known })
        };
        match api {
            Api::V1 => Ok(Self {
                db: param("db").into_owned(),
                rp: param("rp").into_owned(),
                precision: unit(Precision::from_param, "n, ns, u, ms, s, m or h"),
            }),
            Api::Prometheus => match param("db") {
                db if db.is_empty() => Err(Reject::DatabaseRequired),
                db => Ok(Self { db: db.into_owned(), rp: param("rp").into_owned(), precision: Ok(lines::PRECISION) }),
            },
            Api::V2 => {
                let bucket = param("bucket");
                let (db, rp) = database_and_policy(&bucket).ok_or_else(|| Reject::Bucket(bucket.to_vec()))?;
                let precision = unit(Precision::from_v2, "ns, us, ms or s");
                Ok(Self { db: db.to_vec(), rp: rp.to_vec(), precision })
            }
        }
    }
}

/// The parts of `database` or `database/policy`, as InfluxDB 1.8 reads a bucket. None: one of them is empty.
fn database_and_policy(bucket: &[u8]) -> Option<(&[u8], &[u8])> {
    match memchr::memchr(b'/', bucket) {
        None => (!bucket.is_empty()).then_some((bucket, b"")),
        Some(slash) => {
            let (db, rp) = (&bucket[..slash], &bucket[slash + 1..]);
            (!db.is_empty() && !rp.is_empty()).then_some((db, rp))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_a_database_or_a_database_and_a_policy() {
        for (params, want) in [
            ("bucket=db1&org=x", Some(("db1", ""))),
            ("bucket=db1%2Frp", Some(("db1", "rp"))),
            ("bucket=db1/a/b", Some(("db1", "a/b"))),
            ("bucket=%E4%B8%AD", Some(("\u{4e2d}", ""))),
            ("bucket=", None),
            ("org=x&db=db1", None),
            ("bucket=/rp", None),
            ("bucket=db1/", None),
        ] {
            let got = Wanted::read(Api::V2, params.as_bytes()).ok();
            let got = got.as_ref().map(|wanted| (&wanted.db[..], &wanted.rp[..]));
            assert_eq!(got, want.map(|(db, rp): (&str, &str)| (db.as_bytes(), rp.as_bytes())), "{params}");
        }
    }

    #[test]
    fn each_api_has_its_own_names_of_units() {
        let unit = |api, name: &str| {
            Wanted::read(api, format!("db=d&bucket=d&precision={name}").as_bytes()).unwrap().precision.ok()
        };
        for (name, v1, v2) in [
            ("", Some(Precision::Nanosecond), Some(Precision::Nanosecond)),
            ("n", Some(Precision::Nanosecond), None),
            ("ns", Some(Precision::Nanosecond), Some(Precision::Nanosecond)),
            ("u", Some(Precision::Microsecond), None),
            ("us", None, Some(Precision::Microsecond)),
            ("ms", Some(Precision::Millisecond), Some(Precision::Millisecond)),
            ("s", Some(Precision::Second), Some(Precision::Second)),
            ("m", Some(Precision::Minute), None),
            ("h", Some(Precision::Hour), None),
            ("S", None, None),
        ] {
            assert_eq!((unit(Api::V1, name), unit(Api::V2, name)), (v1, v2), "{name}");
        }
    }
}
