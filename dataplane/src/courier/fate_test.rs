//! Tests requests that may be carried out late: no newer point is sent while an older one may come after it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::courier_test::{OK, Rig, rig_with};
use super::stand_in::{Act, Asked, StandIn, until};
use super::*;
use crate::io::block_on;

/// `write_timeout` is 300 ms here, so a connection is watched for 600 ms more.
const LATE: Duration = Duration::from_millis(600);

/// When each request came.
type Times = Arc<Mutex<Vec<(String, Instant)>>>;

/// Does `act` at the first request for `db`, and takes all others.
fn first_of_db(act: Act) -> (StandIn, Times) {
    let times = Times::default();
    let seen = times.clone();
    let mut act = Some(act);
    let server = StandIn::start(move |asked: &Asked| {
        seen.lock().unwrap().push((asked.body.trim().to_owned(), Instant::now()));
        if asked.query.starts_with("db=db&") { act.take().unwrap_or(OK) } else { OK }
    });
    (server, times)
}

fn rig(server: &StandIn) -> Rig {
    rig_with(server.address, |_| {}, ("", ""), false)
}

/// The time between the first arrival of two bodies.
fn between(times: &Times, one: &str, other: &str) -> Duration {
    let times = times.lock().unwrap();
    let of = |body: &str| times.iter().find(|(came, _)| came == body).expect(body).1;
    of(other).saturating_duration_since(of(one))
}

/// The bodies for `db`, in the order in which they came.
fn bodies(server: &StandIn) -> Vec<String> {
    let of_db = |asked: Asked| asked.query.starts_with("db=db&").then(|| asked.body.trim().to_owned());
    server.asked().into_iter().filter_map(of_db).collect()
}

#[test]
fn an_answer_after_the_timeout_counts_and_only_its_database_waits_for_it() {
    block_on(|| async {
        let (server, _) = first_of_db(Act::After(LATE, Box::new(OK)));
        let rig = rig(&server);
        rig.log.append("db", &["m v=1 1"]);
        until("it is down", || rig.reports.states() == [DeliveryState::Down]).await;
        rig.handle.probed(true);
        rig.log.append("db", &["m v=2 1"]);
        rig.log.append("other", &["m v=3 1"]);
        rig.served().await;
        assert_eq!(bodies(&server), ["m v=1 1", "m v=2 1"], "not repeated");
        assert_eq!((rig.reports.delivered("db"), rig.reports.delivered("other")), (2, 1));
        assert_eq!(rig.reports.states().last(), Some(&DeliveryState::Up));
        rig.log.close();
    });
}

#[test]
fn a_refusal_after_the_timeout_counts_as_well() {
    block_on(|| async {
        let refusal = Act::Error(400, "unable to parse 'm v=1 1'".into());
        let (server, _) = first_of_db(Act::After(LATE, Box::new(refusal.clone())));
        let rig = rig(&server);
        rig.log.append("db", &["m v=1 1"]);
        rig.served().await;
        assert_eq!(bodies(&server), ["m v=1 1"]);
        assert_eq!(rig.dead_lines(), ["m v=1 1"]);
        rig.log.close();
    });
}

/// However the doubt came about, the request is repeated at once and alone, and newer points wait for `DOUBT`.
#[test]
fn newer_points_wait_while_an_older_request_may_still_be_carried_out() {
    for act in [
        Act::Cut,
        Act::CutInAnswer,
        Act::Answer(504, ""),
        Act::Error(500, "timeout".into()),
        Act::After(LATE, Box::new(Act::Cut)),
    ] {
        block_on(move || {
            let act = act.clone();
            async move {
                let (server, times) = first_of_db(act.clone());
                let rig = rig(&server);
                rig.log.append("db", &["m v=1 1"]);
                until("it has failed", || !rig.reports.states().is_empty()).await;
                rig.log.append("db", &["m v=2 1"]);
                rig.log.append("other", &["m v=3 1"]);
                rig.served().await;
                assert_eq!(bodies(&server), ["m v=1 1", "m v=1 1", "m v=2 1"], "{act:?}");
                let waited = between(&times, "m v=1 1", "m v=2 1");
                assert!(waited >= DOUBT, "{act:?}: {waited:?}");
                assert!(between(&times, "m v=3 1", "m v=2 1") > Duration::ZERO, "{act:?}: others do not wait");
                rig.log.close();
            }
        });
    }
}

#[test]
fn a_connection_that_stays_silent_is_reset_and_the_request_repeated() {
    block_on(|| async {
        let (server, _) = first_of_db(Act::Hang);
        let rig = rig(&server);
        rig.log.append("db", &["m v=1 1"]);
        until("it is down", || rig.reports.states() == [DeliveryState::Down]).await;
        rig.handle.probed(true);
        rig.log.append("db", &["m v=2 1"]);
        rig.served().await;
        assert_eq!(bodies(&server), ["m v=1 1", "m v=1 1", "m v=2 1"]);
        until("the connection is reset", || server.resets() == 1).await;
        rig.log.close();
    });
}

#[test]
fn the_end_of_a_courier_resets_the_connection_of_a_request_without_an_answer() {
    for wait in [Duration::ZERO, Duration::from_millis(400)] {
        block_on(move || async move {
            let (server, _) = first_of_db(Act::Hang);
            let rig = rig(&server);
            rig.log.append("db", &["m v=1 1"]);
            until("it is sent", || !server.asked().is_empty()).await;
            io::sleep(wait).await;
            rig.handle.stop.notify();
            until("the connection is reset", || server.resets() == 1).await;
        });
    }
}

/// What a former process has sent last may still be carried out.
#[test]
fn after_a_start_newer_points_wait_behind_those_of_a_former_process() {
    block_on(|| async {
        let (server, times) = first_of_db(OK);
        let begun = Instant::now();
        let rig = rig(&server);
        rig.log.began(2);
        rig.log.append("db", &["m v=1 1"]);
        rig.log.append("db", &["m v=2 1"]);
        rig.log.append("other", &["m v=3 1"]);
        rig.served().await;
        assert_eq!(bodies(&server), ["m v=1 1\nm v=2 1"]);
        assert!(begun.elapsed() >= DOUBT);
        assert!(between(&times, "m v=3 1", "m v=1 1\nm v=2 1") > Duration::ZERO, "others do not wait");
        rig.log.close();
    });
}
