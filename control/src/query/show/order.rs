//! The orders in which InfluxDB shows names, keys and series.

use std::borrow::Cow;
use std::cmp::Ordering;

use fluxgate_dataplane::influxql::ast::Show;

use crate::influx::answer::{Row, Series, decoded};

/// The string at `column`, borrowed unless it has escapes. Other values give their JSON text; beyond the end it is "".
pub fn string(row: &Row, column: usize) -> Cow<'_, str> {
    decoded(row.value(column).unwrap_or_default())
}

/// The rows of `all` as one series, sorted by their first column, without duplicates, with LIMIT and OFFSET; None when
/// no row is left.
pub fn one_list(show: &Show, all: &[Series], compare: fn(&str, &str) -> Ordering) -> Option<Series> {
    let mut rows: Vec<_> = all.iter().flat_map(|series| &series.rows).map(|row| (string(row, 0), row)).collect();
    // Merge sort: sorted parts are only merged.
    rows.sort_by(|(a, _), (b, _)| compare(a, b));
    rows.dedup_by(|(a, _), (b, _)| a == b);
    let rows: Vec<_> = window(rows.into_iter(), show.limit, show.offset).map(|(_, row)| row.clone()).collect();
    let Series { name, columns, .. } = all.first().filter(|_| !rows.is_empty())?.clone();
    Some(Series { rows, name, columns, ..Series::default() })
}

/// Applies OFFSET, then LIMIT; a limit of 0 means none.
pub fn window<T>(items: impl Iterator<Item = T>, limit: Option<u64>, offset: Option<u64>) -> impl Iterator<Item = T> {
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let limit = limit.filter(|&limit| limit > 0).map_or(usize::MAX, count);
    items.skip(offset.map_or(0, count)).take(limit)
}

/// `limit` for a backend, so that its answer has all rows that OFFSET and LIMIT over all may need.
pub fn widened(limit: Option<u64>, offset: Option<u64>) -> Option<u64> {
    let limit = limit.filter(|&limit| limit > 0)?;
    // InfluxDB reads counts as int64.
    limit.checked_add(offset.unwrap_or(0)).filter(|&sum| i64::try_from(sum).is_ok())
}

/// The order of SHOW SERIES without time: by measurement, then tag by tag, key before value, all unescaped. A prefix
/// comes before longer keys.
pub fn by_parts(a: &str, b: &str) -> Ordering {
    parts(a).cmp(parts(b))
}

/// An escaped series key as numbers that compare like its parts. The end of a part is below every byte.
fn parts(key: &str) -> impl Iterator<Item = u16> {
    let bytes = key.as_bytes();
    let mut at = 0;
    // The next unescaped `=` ends a tag key; in a measurement or value it is an ordinary byte.
    let mut in_key = false;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        at += 1;
        let ordinary = |byte: u8| Some(u16::from(byte) + 1);
        match byte {
            b'\\' => match bytes.get(at) {
                Some(&escaped @ (b',' | b'=' | b' ')) => {
                    at += 1;
                    ordinary(escaped)
                }
                _ => ordinary(byte),
            },
            b',' => {
                in_key = true;
                Some(0)
            }
            b'=' if in_key => {
                in_key = false;
                Some(0)
            }
            _ => ordinary(byte),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn series_without_time_are_in_the_order_influxdb_gives_them() {
        // The order of one InfluxDB server.
        let keys = [
            "Disk,host=c,path=/",
            "_x,host=a",
            r"a\,b,host=a,k\ 1=v",
            "a=b,host=a",
            "b<>&,host=<&>",
            "cpu",
            "cpu,az=1",
            "cpu,host=a,region=eu",
            r"cpu,host=a\ b",
            "cpu,host=a!",
            r"cpu,host=a\,x",
            r"cpu,host=a\=b",
            "cpu,host=b,region=us",
            r"cpu\ load,host=a",
            "cpu!,host=a",
            "cpu-total,host=a",
            "mem,host=a,region=eu",
            "été,host=é",
        ];
        for pair in keys.windows(2) {
            assert_eq!(by_parts(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(by_parts(keys[2], keys[2]), Ordering::Equal);
    }

    #[test]
    fn strings_are_borrowed_unless_escaped() {
        let row = Row(Bytes::from_static(br#"["a b","\u003c\\","x",7]"#));
        assert!(matches!(string(&row, 0), Cow::Borrowed("a b")));
        assert_eq!(string(&row, 1), r"<\");
        assert_eq!(string(&row, 3), "7");
        assert_eq!(string(&row, 4), "");
    }

    #[test]
    fn a_widened_limit_covers_offset_and_limit() {
        for (limit, offset, expected) in [
            (None, None, None),
            (Some(0), Some(3), None),
            (None, Some(3), None),
            (Some(2), None, Some(2)),
            (Some(2), Some(3), Some(5)),
            (Some(u64::MAX), Some(1), None),
            (Some(i64::MAX as u64), Some(1), None),
        ] {
            assert_eq!(widened(limit, offset), expected, "{limit:?} {offset:?}");
        }
        assert_eq!(window(0..9, Some(2), Some(3)).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(window(0..3, Some(0), Some(u64::MAX)).count(), 0);
        assert_eq!(window(0..3, Some(0), None).count(), 3);
    }
}
