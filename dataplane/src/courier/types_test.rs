//! A backend that may not know the types of fields is not sent what others have refused for them.

use std::time::Duration;

use super::courier_test::{OK, first, rig};
use super::stand_in::{Act, StandIn, until};
use crate::handoff::Created;
use crate::io::{self, block_on};

#[test]
fn lines_of_a_backlog_that_another_backend_has_refused_are_not_sent() {
    block_on(|| async {
        let server = StandIn::start(first(vec![Act::Answer(503, ""), Act::Answer(503, "")]));
        let rig = rig(&server);
        for (record, lines) in [(1, &[1][..]), (2, &[0, 1]), (4, &[0])] {
            rig.reports.knows_refused(record, lines);
        }
        rig.log.append("db", &["m v=1 1", "m v=\"x\" 2", "m v=2 3"]);
        rig.log.append("other", &["m v=\"y\" 1", "m v=\"z\" 2"]);
        rig.log.append("db", &["m v=3 4"]);
        rig.served().await;
        let taken = &server.lines()[2..];
        assert_eq!(taken, [["m v=1 1", "m v=2 3", "m v=3 4"]]);
        let mut dead = rig.dead_lines();
        dead.sort_unstable();
        assert_eq!(dead, ["m v=\"x\" 2", "m v=\"y\" 1", "m v=\"z\" 2"]);
        assert_eq!(rig.reports.delivered("db"), 3);
        until("it has caught up", || rig.reports.rewriting() == [true, false]).await;
        rig.log.append("db", &["m v=\"w\" 1"]);
        rig.served().await;
        assert_eq!(
            server.lines().last().unwrap(),
            &["m v=\"w\" 1"],
            "a backend that has not been away judges for itself"
        );
        rig.log.close();
    });
}

/// The backend was replaced while nothing was sent to it: only the missing database shows it.
#[test]
fn a_backend_that_lacked_the_database_learns_types_from_other_circles() {
    block_on(|| async {
        let mut lacks = true;
        let server = StandIn::start(move |asked| match asked.query.contains("db=db&") && std::mem::take(&mut lacks) {
            true => Act::Error(404, "database not found: \"db\"".into()),
            false => OK,
        });
        let rig = rig(&server);
        rig.reports.will_create(Created::Done);
        rig.reports.others_are_at(1);
        rig.log.append("db", &["m v=\"x\" 1"]);
        rig.log.append("db", &["m v=1 2"]);
        rig.log.append("other", &["m v=3 3"]);
        until("the other database is served", || server.lines().contains(&vec!["m v=3 3".to_owned()])).await;
        io::sleep(Duration::from_millis(100)).await;
        assert!(!rig.log.is_served(), "nobody has judged the lines of the first");
        rig.reports.knows_refused(1, &[0]);
        rig.reports.others_are_at(3);
        rig.served().await;
        assert_eq!(server.lines().last().unwrap(), &["m v=1 2"]);
        assert_eq!(rig.dead_lines(), ["m v=\"x\" 1"]);
        // Nobody judges any more: it does not wait for ever.
        rig.log.append("db", &["m v=4 4"]);
        rig.served().await;
        assert_eq!(server.lines().last().unwrap(), &["m v=4 4"]);
        rig.log.close();
    });
}
