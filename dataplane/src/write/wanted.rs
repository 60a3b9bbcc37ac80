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
    /// Each timestamp tells its unit itself, by [`Precision::of_magnitude`].
    pub by_magnitude: bool,
    /// One bad line refuses all lines.
    pub all_or_none: bool,
}

impl Wanted {
    /// Reads the query string.
    ///
    /// # Errors
    /// When the bucket of version 2 names no database, or Prometheus none at all, or a flag of version 3 is neither.
    pub fn read(api: Api, params: &[u8]) -> Result<Self, Reject> {
        let param = |key| query::first(params, key).unwrap_or_default();
        let precision = param("precision");
        let unknown = |name, given: &[u8], known| Reject::Parameter { name, given: given.to_vec(), known };
        let unit = |read: fn(&[u8]) -> Option<Precision>, known| {
            read(&precision).ok_or_else(|| unknown("precision", &precision, known))
        };
        let plain = |db: &[u8], rp: &[u8], precision| Self {
            db: db.to_vec(),
            rp: rp.to_vec(),
            precision,
            by_magnitude: false,
            all_or_none: false,
        };
        match api {
            Api::V1 => {
                let precision = unit(Precision::from_param, "n, ns, u, ms, s, m or h");
                Ok(plain(&param("db"), &param("rp"), precision))
            }
            Api::Prometheus => match param("db") {
                db if db.is_empty() => Err(Reject::DatabaseRequired),
                db => Ok(plain(&db, &param("rp"), Ok(lines::PRECISION))),
            },
            Api::V2 => {
                let bucket = param("bucket");
                let (db, rp) = database_and_policy(&bucket).ok_or_else(|| Reject::Bucket(bucket.to_vec()))?;
                let precision = unit(Precision::from_v2, "ns, us, ms or s");
                Ok(plain(db, rp, precision))
            }
            Api::V3 => {
                let flag = |name, default| match &*param(name) {
                    b"" => Ok(default),
                    b"true" => Ok(true),
                    b"false" => Ok(false),
                    given => Err(unknown(name, given, "true or false")),
                };
                // An ack before the sync is what `no_sync` permits, not what it asks for.
                flag("no_sync", false)?;
                let by_magnitude = matches!(&*precision, b"" | b"auto");
                let precision = if by_magnitude {
                    Ok(Precision::Nanosecond)
                } else {
                    unit(Precision::from_v3, "auto, nanosecond, microsecond, millisecond or second")
                };
                let all_or_none = !flag("accept_partial", true)?;
                Ok(Self { by_magnitude, all_or_none, ..plain(&param("db"), b"", precision) })
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
            ("%C2%B5", None, Some(Precision::Microsecond)),
            ("%C2%B5s", None, Some(Precision::Microsecond)),
            ("ms", Some(Precision::Millisecond), Some(Precision::Millisecond)),
            ("s", Some(Precision::Second), Some(Precision::Second)),
            ("m", Some(Precision::Minute), None),
            ("h", Some(Precision::Hour), None),
            ("S", None, None),
        ] {
            assert_eq!((unit(Api::V1, name), unit(Api::V2, name)), (v1, v2), "{name}");
        }
        for (name, want) in [
            ("ns", Some(Precision::Nanosecond)),
            ("nanosecond", Some(Precision::Nanosecond)),
            ("us", Some(Precision::Microsecond)),
            ("microsecond", Some(Precision::Microsecond)),
            ("ms", Some(Precision::Millisecond)),
            ("millisecond", Some(Precision::Millisecond)),
            ("s", Some(Precision::Second)),
            ("second", Some(Precision::Second)),
            ("n", None),
            ("minute", None),
        ] {
            assert_eq!(unit(Api::V3, name), want, "{name}");
        }
    }

    #[test]
    fn version_3_has_flags() {
        let read = |params: &str| Wanted::read(Api::V3, params.as_bytes());
        for (params, by_magnitude, all_or_none) in [
            ("db=d", true, false),
            ("db=d&precision=auto&accept_partial=true&no_sync=true", true, false),
            ("db=d&precision=second&accept_partial=false&no_sync=false", false, true),
        ] {
            let wanted = read(params).unwrap();
            assert_eq!(
                (&wanted.db[..], wanted.by_magnitude, wanted.all_or_none),
                (&b"d"[..], by_magnitude, all_or_none)
            );
        }
        assert!(read("db=d&no_sync=1").is_err() && read("db=d&accept_partial=no").is_err());
    }
}
