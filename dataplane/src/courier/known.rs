//! What answers to writes mean, as one table: by status, by text, and by whether the error is in InfluxDB's own form.
//! The first row that fits counts.
//!
//! `tests/golden/servers.jsonl` has an answer for each row, and says which server gives it and where that stands in its
//! public sources. Not here: which lines a refusal is about (`hint`), what the courier then does (`deliver`).

use std::ops::RangeInclusive;

use super::answer::WriteAnswer;
use super::verdict::WriteVerdict::{
    self, Delivered, Misdirected, Missing, NotNow, Refused, Suspect, TooLarge, Unauthorized, Unavailable,
};

/// The form of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Any,
    /// Neither InfluxDB's field nor its JSON: InfluxDB 2, VictoriaMetrics, or something in between.
    Foreign,
    Own,
}

use Form::{Any, Foreign, Own};

/// One row: statuses, form, a part of the error's text (empty = any text), and what it means.
type KnownAnswer = (RangeInclusive<u16>, Form, &'static str, WriteVerdict);

static ROWS: &[KnownAnswer] = &[
    (204..=204, Any, "", Delivered),
    // A server in between: no server of ours answers so.
    (100..=399, Any, "", Misdirected),
    (401..=401, Any, "", Unauthorized),
    (403..=403, Any, "", Unauthorized),
    (407..=407, Any, "", Unauthorized),
    (404..=404, Any, "database not found", Missing),
    // InfluxDB 2 has no bucket for the database.
    (404..=404, Any, "\"code\":\"not found\"", Unauthorized),
    (404..=405, Foreign, "", Misdirected),
    // Go's server to plain HTTP on a TLS port: the url in the configuration is wrong, not the lines.
    (400..=400, Foreign, "HTTP request to an HTTPS server", Misdirected),
    // The same points may be written again later.
    (400..=400, Own, "is pending deletion", NotNow),
    (408..=408, Any, "", Unavailable),
    (413..=413, Any, "", TooLarge),
    (429..=429, Any, "", Unavailable),
    (400..=499, Own, "partial write", Refused { certain: true }),
    (400..=499, Own, "unable to parse", Refused { certain: true }),
    (400..=499, Own, "field type conflict", Refused { certain: true }),
    // InfluxDB 3. A limit of columns or tables keeps some lines out, one of databases all of them.
    (400..=499, Own, "parsing failed for write_lp endpoint", Refused { certain: true }),
    (422..=422, Own, "Update to schema would exceed number of", Refused { certain: true }),
    // Nobody knows whether it is about the lines: they are kept, and the log shows the text.
    (400..=499, Own, "", NotNow),
    (400..=499, Foreign, "", Refused { certain: false }),
    (500..=500, Any, "retention policy not found", Missing),
    // It is stopping.
    (500..=500, Own, "write failed", NotNow),
    (500..=500, Own, "engine is closed", NotNow),
    (500..=500, Own, "shard is disabled", NotNow),
    // It takes no more until it has written its cache.
    (500..=500, Own, "cache-max-memory-size exceeded", NotNow),
    (503..=504, Any, "", Unavailable),
    // Every other error of a storage.
    (500..=u16::MAX, Any, "", Suspect),
];

fn row(answer: &WriteAnswer) -> Option<&'static KnownAnswer> {
    ROWS.iter().find(|(statuses, form, text, _)| {
        statuses.contains(&answer.status)
            && answer.error.contains(text)
            && match form {
                Any => true,
                Own => answer.named,
                Foreign => !answer.named,
            }
    })
}

/// What an answer means.
pub fn verdict(answer: &WriteAnswer) -> WriteVerdict {
    row(answer).map_or(Misdirected, |(.., verdict)| *verdict)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use serde_json::Value;

    use super::super::answer::{self, Progress};
    use super::super::courier_test::{OK, rig_with};
    use super::super::stand_in::{Act, StandIn, until};
    use super::*;
    use crate::golden::servers;
    use crate::io::block_on;

    fn parsed(recorded: &Value) -> WriteAnswer {
        let (status, body) = (recorded["status"].as_u64().unwrap(), recorded["body"].as_str().unwrap());
        let mut bytes = format!("HTTP/1.1 {status} x\r\n");
        for (name, value) in recorded["fields"].as_object().unwrap() {
            write!(bytes, "{name}: {}\r\n", value.as_str().unwrap()).unwrap();
        }
        if status != 204 {
            write!(bytes, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        bytes = bytes + "\r\n" + body;
        match answer::parse(bytes.as_bytes(), false) {
            Ok(Progress::Complete { answer, .. }) => answer,
            other => panic!("{other:?}: {bytes}"),
        }
    }

    #[test]
    fn recorded_answers_of_servers_have_their_verdict_and_each_row_has_one() {
        let mut met = vec![false; ROWS.len()];
        for recorded in servers("write") {
            let answer = parsed(&recorded);
            assert_eq!(format!("{:?}", verdict(&answer)), recorded["means"].as_str().unwrap(), "{recorded}");
            met[ROWS.iter().position(|known| std::ptr::eq(known, row(&answer).unwrap())).unwrap()] = true;
        }
        let idle: Vec<_> = ROWS.iter().zip(met).filter(|(_, met)| !met).collect();
        assert!(idle.is_empty(), "no server is known to answer so: {idle:?}");
    }

    /// What is no fault of the lines: replayed, and then the server is put right.
    #[test]
    fn points_that_a_server_does_not_take_now_are_kept_and_others_go_on() {
        let is_held = |recorded: &Value| {
            recorded["means"] == "NotNow" || recorded["fields"]["X-Platform-Error-Code"] == "not found"
        };
        for recorded in servers("write").into_iter().filter(is_held) {
            let answer = parsed(&recorded);
            // The stand-in sends no fields; an error in InfluxDB's own form is in the body as well.
            let body: &'static str = recorded["body"].as_str().unwrap().to_owned().leak();
            let status = answer.status;
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
