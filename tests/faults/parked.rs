//! Promise: points of a database that a backend does not take hold up no other database of that backend, however many
//! there are and however long it lasts; also after `kill -9`, and nothing is delivered twice.

use std::time::Duration;

use crate::circles::{Circles, balanced, drained};
use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::{Proxy, backend_name, eventually};
use fluxgate::lab::stand_in::Fault;
use rustix::process::Signal;

/// Some 60 KB; what a window holds of held points is exceeded a hundred times.
const LINES: u64 = 1_000;
const HELD: u64 = 600;
const SOON: Duration = Duration::from_secs(20);

/// A request of [`LINES`] points with numbers from `first` on.
fn write(proxy: &Proxy, db: &str, measurement: &str, first: u64) {
    let body: String = (first..first + LINES)
        .map(|n| format!("{measurement},host=some-host-with-a-name n={n}i,v=0.5 {}\n", 1_700_000_000_000 + n))
        .collect();
    let target = format!("/write?db={db}&precision=ms");
    let reply = Client::connect(proxy.addr()).unwrap().request("POST", &target, &[], body.as_bytes()).unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
}

fn parked_holds_up_no_other(workers: usize) {
    let mut circles = Circles::new(2, 1);
    circles.0.iter().flatten().for_each(|backend| ["held", "free"].iter().for_each(|db| backend.create_database(db)));
    let mut proxy = start(&circles.config().set("workers", workers as u64));
    let forbids = |circles: &Circles| {
        let error = r#"{"error":"\"w\" user is not authorized to write to database \"held\""}"#;
        circles.0[1][0].always(Some(Fault::Poison("secret".into(), 403, error.into())));
    };
    forbids(&circles);
    for request in 0..HELD {
        write(&proxy, "held", "secret", request * LINES);
    }
    let free = |circles: &Circles| circles.0[1][0].points("free");
    for round in 0..3 {
        for request in 0..20 {
            write(&proxy, "free", "open", (round * 20 + request) * LINES);
        }
        assert!(
            eventually(SOON, || free(&circles) == (round + 1) * 20 * LINES),
            "round {round}: {}\n{}",
            free(&circles),
            proxy.stderr()
        );
        if round == 1 {
            // What is settled is saved within a second.
            std::thread::sleep(Duration::from_millis(2_500));
            proxy.signal(Signal::KILL).unwrap();
            proxy.restart().unwrap();
        }
    }
    let ledger = balanced(&proxy);
    assert_eq!(ledger.backend(&backend_name(1, 0)).queued, HELD * LINES, "{ledger:?}\n{}", proxy.stderr());
    assert_eq!(free(&circles), 60 * LINES, "nothing is delivered twice");

    circles.0[1][0].always(None);
    // New ones meanwhile.
    for request in 0..50 {
        write(&proxy, "held", "secret", (HELD + request) * LINES);
    }
    drained(&proxy);
    for circle in 0..2 {
        let serials = circles.0[circle][0].serials("held");
        assert_eq!(serials.len(), (HELD + 50) * LINES, "circle {circle}\n{}", proxy.stderr());
    }
    assert_eq!(circles.0[1][0].points("held"), (HELD + 50) * LINES, "nothing is delivered twice");
    // They are not apart any more.
    assert!(eventually(SOON, || proxy.stderr().contains("wait on their own no longer")), "{}", proxy.stderr());
    write(&proxy, "held", "secret", (HELD + 50) * LINES);
    drained(&proxy);
    assert_eq!(circles.0[1][0].points("held"), (HELD + 51) * LINES);
    circles.0[1][0].stop();
}

#[test]
fn held_points_hold_up_no_other_database_with_one_worker() {
    parked_holds_up_no_other(1);
}

#[test]
fn held_points_hold_up_no_other_database_with_three_workers() {
    parked_holds_up_no_other(3);
}
