//! What answers to writes mean, as one table: by status, by text, and by whether the error is in InfluxDB's own form.
//! Each row says which server answers so, and where that stands in its public sources.
//!
//! The first row that fits counts. Not here: which lines a refusal is about (`hint`), what the courier then does
//! (`deliver`).

use std::ops::RangeInclusive;

use super::answer::WriteAnswer;
use super::verdict::WriteVerdict::{
    self, Delivered, Misdirected, Missing, NotNow, Refused, Suspect, TooLarge, Unauthorized, Unavailable,
};

/// One row.
#[derive(Debug)]
pub struct KnownAnswer {
    statuses: RangeInclusive<u16>,
    /// A part of the error's text; empty = any text.
    text: &'static str,
    form: Form,
    pub verdict: WriteVerdict,
    /// Who answers so, and where that can be read.
    #[cfg(test)]
    from: &'static str,
    /// An answer to which this row applies: the field with the error, if there is one, and the body.
    #[cfg(test)]
    example: (&'static str, &'static str),
}

/// The form of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Any,
    /// Not InfluxDB 1.x's: neither its field nor its JSON.
    Foreign,
    Own,
}

/// One row: statuses, form, text => verdict; example; source.
macro_rules! row {
    ($statuses:expr, $form:ident, $text:literal => $verdict:expr; $field:literal, $body:literal; $from:literal) => {
        KnownAnswer {
            statuses: $statuses,
            text: $text,
            form: Form::$form,
            verdict: $verdict,
            #[cfg(test)]
            from: $from,
            #[cfg(test)]
            example: ($field, $body),
        }
    };
}

const ROWS: &[KnownAnswer] = &[
    row!(204..=204, Any, "" => Delivered; "", "";
        "InfluxDB 1.x, services/httpd/handler.go; 2.x, http/legacy/write_handler.go; VictoriaMetrics, app/vminsert"),
    row!(100..=399, Any, "" => Misdirected; "", "<html>moved</html>"; "a server in between: none of those above"),
    row!(401..=401, Any, "" => Unauthorized; "authorization failed", r#"{"error":"authorization failed"}"#;
        "InfluxDB 1.x, services/httpd/handler.go"),
    row!(403..=403, Any, "" => Unauthorized;
        "", r#"{"code":"forbidden","message":"insufficient permissions for write"}"#;
        "InfluxDB 1.x, services/httpd/handler.go; 2.x, http/legacy/write_handler.go"),
    row!(407..=407, Any, "" => Unauthorized; "", "proxy authentication required"; "a proxy in between, RFC 9110"),
    row!(404..=404, Any, "database not found" => Missing; "", r#"{"error":"database not found: \"db\""}"#;
        "InfluxDB 1.x, services/httpd/handler.go"),
    row!(404..=404, Any, "no dbrp mapping found" => Unauthorized;
        "", r#"{"code":"not found","message":"no dbrp mapping found"}"#; "InfluxDB 2.x, http/legacy/write_handler.go"),
    row!(404..=405, Foreign, "" => Misdirected; "", "404 page not found"; "Go, net/http: the url is not a server's"),
    // Go's server to plain HTTP on a TLS port: the url in the configuration is wrong, not the lines.
    row!(400..=400, Foreign, "HTTP request to an HTTPS server" => Misdirected;
        "", "Client sent an HTTP request to an HTTPS server."; "Go, net/http/server.go"),
    row!(400..=400, Own, "is pending deletion" => NotNow;
        "", r#"{"error":"partial write: shard 7 is pending deletion dropped=1"}"#;
        "InfluxDB 1.8, coordinator/points_writer.go: the same points may be written again later"),
    row!(408..=408, Any, "" => Unavailable; "", "request timed out"; "a server in between, RFC 9110"),
    row!(413..=413, Any, "" => TooLarge; "", r#"{"error":"Request Entity Too Large"}"#;
        "InfluxDB 1.x, services/httpd/handler.go (max-body-size)"),
    row!(429..=429, Any, "" => Unavailable; "", "too many requests"; "InfluxDB 2.x in the cloud; proxies, RFC 6585"),
    row!(400..=499, Own, "partial write" => Refused { certain: true };
        "", r#"{"error":"partial write: points beyond retention policy dropped=1"}"#;
        "InfluxDB 1.x, services/httpd/handler.go, tsdb/shard.go (PartialWriteError)"),
    row!(400..=499, Own, "unable to parse" => Refused { certain: true };
        "", r#"{"error":"unable to parse 'm': missing fields"}"#; "InfluxDB 1.x, models/points.go"),
    row!(400..=499, Own, "field type conflict" => Refused { certain: true };
        "", r#"{"error":"field type conflict: input field \"v\" on measurement \"m\" is type integer"}"#;
        "InfluxDB 1.x, errors.go (IsClientError), tsdb/shard.go"),
    // Nobody knows whether it is about the lines: they are kept, and the log shows the text.
    row!(400..=499, Own, "" => NotNow; "", r#"{"error":"a text of a later version"}"#; "nowhere: not known"),
    row!(400..=499, Foreign, "" => Refused { certain: false };
        "", r#"{"code":"invalid","message":"unable to parse 'm': missing fields"}"#;
        "InfluxDB 2.x, http/legacy/write_handler.go; VictoriaMetrics, lib/httpserver (Errorf)"),
    row!(500..=500, Any, "retention policy not found" => Missing; "", r#"{"error":"retention policy not found: week"}"#;
        "InfluxDB 1.x, coordinator/points_writer.go (MapShards)"),
    row!(500..=500, Own, "write failed" => NotNow; "", r#"{"error":"write failed"}"#;
        "InfluxDB 1.x, coordinator/points_writer.go (ErrWriteFailed): it is stopping"),
    row!(500..=500, Own, "engine is closed" => NotNow; "", r#"{"error":"engine is closed"}"#;
        "InfluxDB 1.x, tsdb/shard.go (ErrEngineClosed)"),
    row!(500..=500, Own, "shard is disabled" => NotNow; "", r#"{"error":"shard is disabled"}"#;
        "InfluxDB 1.x, tsdb/shard.go (ErrShardDisabled)"),
    row!(500..=500, Own, "cache-max-memory-size exceeded" => NotNow;
        "", r#"{"error":"engine: cache-max-memory-size exceeded: (1074767264/1073741824)"}"#;
        "InfluxDB 1.x, tsdb/engine/tsm1/cache.go: it takes no more until it has written its cache"),
    row!(503..=504, Any, "" => Unavailable; "", r#"{"error":"request throttled"}"#;
        "InfluxDB 1.x, services/httpd/handler.go (max-enqueued-write-limit); proxies, RFC 9110"),
    row!(500..=u16::MAX, Any, "" => Suspect; "engine: unable to parse value", "";
        "InfluxDB 1.x, services/httpd/handler.go: every other error of its storage; 2.x: internal error"),
];

/// What an answer means.
pub fn verdict(answer: &WriteAnswer) -> WriteVerdict {
    let fits = |row: &&KnownAnswer| {
        row.statuses.contains(&answer.status)
            && answer.error.contains(row.text)
            && match row.form {
                Form::Any => true,
                Form::Own => answer.named,
                Form::Foreign => !answer.named,
            }
    };
    ROWS.iter().find(fits).map_or(WriteVerdict::Misdirected, |row| row.verdict)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::super::answer::{self, Progress};
    use super::super::courier_test::{OK, rig_with};
    use super::super::stand_in::{Act, StandIn, until};
    use super::*;
    use crate::io::block_on;

    fn head(row: &KnownAnswer, length: usize) -> String {
        let (field, _) = row.example;
        let status = *row.statuses.start();
        let error = if field.is_empty() { String::new() } else { format!("X-Influxdb-Error: {field}\r\n") };
        let length = if status == 204 { String::new() } else { format!("Content-Length: {length}\r\n") };
        format!("HTTP/1.1 {status} x\r\n{error}{length}\r\n")
    }

    #[test]
    fn the_answer_of_each_row_has_its_verdict_and_a_source() {
        for row in ROWS.iter().filter(|row| *row.statuses.start() >= 200) {
            let (_, body) = row.example;
            let bytes = head(row, body.len()) + body;
            let Ok(Progress::Complete { answer, .. }) = answer::parse(bytes.as_bytes(), false) else {
                panic!("{bytes}");
            };
            assert_eq!(verdict(&answer), row.verdict, "{bytes}");
            assert!(row.from.contains(',') || row.from.contains(':'), "{}: who, and where", row.from);
        }
    }

    /// What is no fault of the lines: replayed, and then the server is put right.
    #[test]
    fn points_that_a_server_does_not_take_now_are_kept_and_others_go_on() {
        for row in ROWS.iter().filter(|row| row.verdict == NotNow || row.text == "no dbrp mapping found") {
            let (status, body) = (*row.statuses.start(), row.example.1);
            block_on(move || async move {
                let right = Arc::new(AtomicBool::new(false));
                let is_right = right.clone();
                let server = StandIn::start(move |asked| match is_right.load(SeqCst) {
                    false if asked.query.starts_with("db=held&") => Act::Answer(status, body),
                    _ => OK,
                });
                let rig = rig_with(server.address, |_| {}, ("", ""), false);
                rig.log.append("held", &["m v=1 1", "m v=2 2"]);
                rig.log.append("other", &["m v=1 1"]);
                until("it was asked some times, and the other one arrives", || {
                    let held = server.asked().iter().filter(|asked| asked.query.starts_with("db=held&")).count();
                    held > 4 && server.asked().iter().any(|asked| asked.query.starts_with("db=other&"))
                })
                .await;
                right.store(true, SeqCst);
                rig.served().await;
                assert_eq!((rig.reports.delivered("held"), rig.dead_letters()), (2, String::new()), "{body}");
                rig.log.close();
            });
        }
    }
}
