//! Promise: points of a database that a backend does not take hold up no other database of that backend, however many
//! there are, however long it lasts and whatever it says; also after `kill -9` and with another number of workers, and
//! nothing is delivered twice.

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

/// The backend answers `status` and `error` for one database. `workers`: before and after a restart.
fn parked_holds_up_no_other(workers: [u64; 2], status: u16, error: &str) {
    let mut circles = Circles::new(2, 1);
    circles.0.iter().flatten().for_each(|backend| ["held", "free"].iter().for_each(|db| backend.create_database(db)));
    let mut proxy = start(&circles.config().set("workers", workers[0]));
    circles.0[1][0].always(Some(Fault::Poison("secret".into(), status, format!("{{\"error\":\"{error}\"}}"))));
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
            proxy.edit(|file| file["workers"] = workers[1].into()).unwrap();
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
fn a_forbidden_database_holds_up_no_other() {
    parked_holds_up_no_other([1, 2], 403, "user is not authorized to write to database held");
}

#[test]
fn a_database_whose_storage_is_closed_holds_up_no_other() {
    parked_holds_up_no_other([3, 1], 500, "engine is closed");
}

#[test]
fn a_database_of_which_nobody_knows_what_is_wrong_holds_up_no_other() {
    parked_holds_up_no_other([2, 3], 400, "a text of a later version");
}
