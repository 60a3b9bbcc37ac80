//! Clients: each does its requests one after the other, over a kept or a new connection, and notes what it was told.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use fluxgate_machine::{exec, net};
use futures_lite::{AsyncWriteExt, FutureExt};

use crate::backend::read_message;
use crate::hosts;
use crate::influx::POLICY;
use crate::setup::{Connection, Level, Op, Safety};
use crate::world::{Asked, Fate, World, Write};

/// Bytes of the string in a long line.
const LONG: usize = 5000;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Does these requests, which are of one client.
pub async fn run(world: Rc<World>, ops: Vec<Op>) {
    let mut kept: Option<net::Stream> = None;
    for op in ops {
        let due = Duration::from_millis(op.at).saturating_sub(exec::now());
        exec::sleep(due).await;
        let writes: Vec<usize> = {
            let mut all = world.writes.borrow_mut();
            let safety = if op.level == Level::Default { world.setup.safety } else { Safety::Disk };
            let begin = exec::now();
            op.points
                .iter()
                .map(|&point| {
                    let place = hosts::place(op.db, point);
                    let fate = Fate::Unknown;
                    all.push(Write { place, float: point.float, begin, end: Duration::MAX, fate, safety });
                    all.len() - 1
                })
                .collect()
        };
        if op.connection == Connection::Fresh {
            kept = None;
        }
        let answer = async { exchange(&mut kept, &op, &writes).await }
            .or(async {
                exec::sleep(PATIENCE).await;
                None
            })
            .await;
        let fate = match answer {
            Some(204) => Fate::Acked,
            // A partial write: what backends did not refuse is stored.
            Some(400) if op.level == Level::All => Fate::Acked,
            Some(400..500) => Fate::Refused,
            _ => Fate::Unknown,
        };
        exec::trace(|| format!("client {} writes {:?}: {answer:?}", op.client, writes));
        if answer.is_none() {
            kept = None;
        }
        if op.level == Level::All {
            let begin = world.writes.borrow()[writes[0]].begin;
            world.asked_all(Asked { op, writes: writes.clone(), answer, begin, end: exec::now() });
        }
        for &number in &writes {
            let mut all = world.writes.borrow_mut();
            (all[number].fate, all[number].end) = (fate, exec::now());
        }
        if fate != Fate::Acked {
            exec::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn exchange(kept: &mut Option<net::Stream>, op: &Op, writes: &[usize]) -> Option<u16> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => net::connect(hosts::proxy_addr()).await.ok()?,
    };
    let mut body = String::new();
    for (point, number) in op.points.iter().zip(writes) {
        let (measurement, kind) = (point.measurement, if point.float { "" } else { "i" });
        // Measurements as `hosts::measurement` names them.
        let _ = write!(body, "m{measurement},p={} v={number}{kind}", point.number);
        if op.long && number == &writes[0] {
            let _ = write!(body, ",s=\"{}\"", "s".repeat(LONG));
        }
        body.push_str(" 1700000000000000000\n");
    }
    let policy = if op.policy == 0 { String::new() } else { format!("&rp={POLICY}") };
    let level = match op.level {
        Level::Default => "",
        Level::Any => "&consistency=any",
        Level::All => "&consistency=all",
    };
    let request = format!(
        "POST /write?db={}{policy}{level} HTTP/1.1\r\nHost: p\r\nContent-Length: {}\r\n\r\n{body}",
        hosts::database(op.db),
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let (head, _) = read_message(&stream, &mut Vec::new()).await?;
    *kept = Some(stream);
    head.split(' ').nth(1)?.parse().ok()
}
