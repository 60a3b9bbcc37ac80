//! What must hold when everything has been put right and all has been delivered.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use fluxgate_dataplane::handoff::{LedgerBackend, LedgerRow};
use fluxgate_machine::{disk, exec};

use crate::backend::{Server, text};
use crate::hosts;
use crate::influx::TYPE_CONFLICT;
use crate::setup::{DATABASES, Full, Level, Safety};
use crate::statement;
use crate::world::{Asked, Counts, Fate, Trouble, World, Write};

/// Deliveries that no fault concerns take no longer.
const LATE: Duration = Duration::from_secs(10);

/// `write_timeout` is ten seconds: what is answered long before was not waited for in vain.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);

/// Kinds of violations.
pub const LOST: &str = "lost";
pub const ORDER: &str = "order";
pub const CIRCLES: &str = "circles differ";
pub const TYPES: &str = "types differ";
pub const INVENTED: &str = "invented";
pub const ACCOUNTS: &str = "accounts";
pub const BLAMED: &str = "refused without cause";
pub const LATENESS: &str = "late";
pub const UNANSWERED: &str = "consistency not answered";
pub const VERDICT: &str = "consistency answered wrongly";
pub const STUCK: &str = "stuck";
pub const CLOSED: &str = "takes no writes";
pub const PANIC: &str = "panic";
pub const LETTERS: &str = "no dead letter";
pub const SAYS: &str = "a courier says that nothing waits";
pub const FENCE: &str = "a drop and older or newer points";

pub fn all(world: &World, ledger: &[LedgerRow]) {
    let writes = world.writes.borrow();
    order(world, &writes);
    circles(world, &writes);
    types(world, &writes);
    invented(world, &writes);
    losses(world, &writes, ledger);
    letters(world, &writes, ledger);
    accounts(world, &writes, ledger);
    lateness(world, &writes);
    unanswered(world);
    let fences = statement::check(world, &writes, |write| is_safe(world, write));
    fences.into_iter().for_each(|text| world.broken(FENCE, text));
    verdicts(world, &writes);
}

/// Whether what a write was promised covers every crash after its ack.
fn is_safe(world: &World, write: &Write) -> bool {
    if write.safety == Safety::Memory && world.log_may_fail {
        return false;
    }
    world.crashes.borrow().iter().all(|&(at, power)| {
        let wanted = if power { Safety::Disk } else { Safety::Os };
        // What was delivered and not acknowledged may not have been on disk.
        at < write.begin || write.safety >= wanted && (write.fate == Fate::Acked || !power)
    })
}

/// Per point: the value on each backend is not older than one that was acknowledged before the write of which it is
/// began.
fn order(world: &World, writes: &[Write]) {
    let mut acked: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (number, write) in writes.iter().enumerate().filter(|(_, write)| write.fate == Fate::Acked) {
        acked.entry(write.place).or_default().push(number);
    }
    for (backend, server) in world.backends.iter().enumerate() {
        for ((place, ..), history) in &server.borrow().influx.history {
            let Some(&(_, last)) = history.last() else { continue };
            let old = &writes[last];
            if old.fate != Fate::Acked {
                continue;
            }
            // One that never came is lost, which is another matter.
            let came = |number: &usize| history.iter().any(|(_, came)| came == number);
            // What a crash was allowed to take may be missing behind what it left.
            let is_newer = |n: &&usize| writes[**n].begin > old.end && came(n) && is_safe(world, &writes[**n]);
            let newer = acked.get(place).into_iter().flatten().find(is_newer);
            if let Some(number) = newer {
                let came: Vec<_> = history.iter().map(|(_, number)| number).collect();
                world.broken(ORDER, format!("b{backend} {place:?}: {last} stands over {number}; it got {came:?}"));
            }
        }
    }
}

/// The same value of a point in all circles.
fn circles(world: &World, writes: &[Write]) {
    let places: BTreeSet<_> = writes.iter().map(|write| write.place).collect();
    for place in places {
        let owners = world.owners(place);
        if owners.iter().any(|&owner| world.has_dropped(owner, place.db)) {
            continue;
        }
        let last = |&owner: &usize| {
            let server = world.backends[owner].borrow();
            let history = server.influx.history_of(place)?;
            // Only what has reached all of them, and cannot be lost before it is repeated, can be compared.
            let everywhere = |number: usize| {
                is_safe(world, &writes[number])
                    && owners.iter().all(|&o| world.backends[o].borrow().influx.applied.has(number))
            };
            history.iter().rev().map(|(_, number)| *number).find(|&number| everywhere(number))
        };
        let values: Vec<_> = owners.iter().map(last).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            world.broken(CIRCLES, format!("{place:?}: {values:?} on {owners:?}"));
        }
    }
}

/// A line that one circle has refused for its type is in none. A server that lost everything learns the types anew.
fn types(world: &World, writes: &[Write]) {
    for (number, write) in writes.iter().enumerate() {
        let owners = world.owners(write.place);
        let forgets = |&owner: &usize| world.has_dropped(owner, write.place.db) && !world.is_emptied(owner);
        if owners.iter().any(forgets) {
            continue;
        }
        let refused = |&&owner: &&usize| {
            world.backends[owner].borrow().influx.refused.get(&number).is_some_and(|why| *why == TYPE_CONFLICT)
        };
        let applied = |&&owner: &&usize| world.backends[owner].borrow().influx.applied.has(number);
        if owners.iter().any(|o| refused(&o)) && owners.iter().any(|o| applied(&o)) {
            let (by, there): (Vec<_>, Vec<_>) =
                (owners.iter().filter(refused).collect(), owners.iter().filter(applied).collect());
            world.broken(TYPES, format!("write {number} is refused by {by:?} and stored by {there:?}"));
        }
    }
}

/// Nothing is stored that nobody wrote there, or that was refused to its client.
fn invented(world: &World, writes: &[Write]) {
    for (backend, server) in world.backends.iter().enumerate() {
        for ((place, ..), history) in &server.borrow().influx.history {
            for &(_, number) in history {
                let right = writes.get(number).is_some_and(|write| {
                    write.place == *place && write.fate != Fate::Refused && world.owners(*place).contains(&backend)
                });
                if !right {
                    world.broken(INVENTED, format!("b{backend} has {number} at {place:?}"));
                }
            }
        }
    }
}

fn sums(rows: &[LedgerRow], value: impl Fn(&LedgerRow) -> u64) -> Counts {
    let mut sums = Counts::new();
    for row in rows {
        let LedgerBackend::Configured(backend) = row.backend else { continue };
        *sums.entry((hosts::number_of(&row.db), backend.index())).or_default() += value(row);
    }
    sums
}

fn reasons(reasons: &[(String, u64)]) -> u64 {
    reasons.iter().map(|(_, points)| points).sum()
}

/// Every acknowledged point is on every backend of its route, or in the ledger as refused or dropped; and nothing is
/// refused that the backend had no reason to refuse.
fn losses(world: &World, writes: &[Write], ledger: &[LedgerRow]) {
    let given_up = sums(ledger, |row| reasons(&row.rejected) + reasons(&row.dropped));
    let rejected = sums(ledger, |row| reasons(&row.rejected));
    let dropped = sums(ledger, |row| reasons(&row.dropped));
    let mut missing: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (number, write) in writes.iter().enumerate() {
        if write.fate != Fate::Acked || !is_safe(world, write) {
            continue;
        }
        for &owner in world.owners(write.place).iter() {
            if !world.backends[owner].borrow().influx.applied.has(number) {
                missing.entry((write.place.db, owner)).or_default().push(number);
            }
        }
    }
    for (key, numbers) in missing {
        let excused = given_up.get(&key).copied().unwrap_or(0);
        if numbers.len() as u64 <= excused {
            continue;
        }
        // What a backend refuses is no loss, and after an outage another one is not sent it.
        let by = |server: &RefCell<Server>, number: &usize| server.borrow().influx.refused.contains_key(number);
        let is_unrefused = |number: &&usize| !world.backends.iter().any(|server| by(server, number));
        let unrefused = numbers.iter().filter(is_unrefused).count() as u64;
        let (db, owner) = key;
        let text = format!("db{db} on b{owner} lacks {numbers:?}; the ledger has {excused} as given up");
        if unrefused > dropped.get(&key).copied().unwrap_or(0) {
            world.broken(LOST, text);
        } else {
            world.broken(ACCOUNTS, format!("not all that were refused count: {text}"));
        }
    }
    for ((db, backend), points) in rejected {
        let influx = &world.backends[backend].borrow().influx;
        let of = |number: &&usize| writes[**number].place.db == db;
        // After an outage a backend is not sent what another one has refused.
        let servers: Vec<_> = world.backends.iter().map(|server| server.borrow()).collect();
        let refused = servers.iter().flat_map(|server| server.influx.refused.keys());
        let cause: BTreeSet<_> = refused.chain(&influx.homeless).filter(of).collect();
        // What was stored before a database went, and was looked at again afterwards, went with it.
        let dropped = world.drops.borrow().iter().any(|dropped| *dropped == (backend, db));
        if points > cause.len() as u64 && !dropped {
            world.broken(
                BLAMED,
                format!("db{db} b{backend}: {points} points among the dead letters, {} had a cause", cause.len()),
            );
        }
    }
}

/// What a backend refused, and did not take later, lies among the dead letters.
fn letters(world: &World, writes: &[Write], ledger: &[LedgerRow]) {
    let dropped = sums(ledger, |row| reasons(&row.dropped));
    for (backend, server) in world.backends.iter().enumerate() {
        let folder = Path::new("/data/rejected").join(format!("b{backend}"));
        let files = disk::all_files(hosts::PROXY, &folder);
        let texts: Vec<_> = files.iter().filter_map(|file| disk::contents(hosts::PROXY, file)).collect();
        let values = values(&text(&texts.concat()));
        let influx = &server.borrow().influx;
        for &number in influx.refused.keys().filter(|number| !influx.applied.has(**number)) {
            let write = &writes[number];
            let key = (write.place.db, backend);
            let excused = dropped.get(&key).copied().unwrap_or(0) > 0;
            if write.fate == Fate::Acked && is_safe(world, write) && !values.contains(&number) && !excused {
                world.broken(LETTERS, format!("b{backend} has refused write {number}"));
            }
        }
    }
}

/// The values that whole lines in a text write.
fn values(text: &str) -> BTreeSet<usize> {
    let value = |part: &str| {
        let digits = part.find(|c: char| !c.is_ascii_digit())?;
        let end = part[digits..].strip_prefix('i').unwrap_or(&part[digits..]);
        end.starts_with([' ', ',']).then(|| part[..digits].parse().ok())?
    };
    text.split(" v=").skip(1).filter_map(value).collect()
}

/// accepted = delivered + rejected + dropped, and accepted is what clients count.
fn accounts(world: &World, writes: &[Write], ledger: &[LedgerRow]) {
    // What each backend must and may have accepted, by (database, backend).
    let mut counted: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for write in writes.iter().filter(|write| write.fate != Fate::Refused) {
        for &owner in world.owners(write.place).iter() {
            let (least, most) = counted.entry((write.place.db, owner)).or_default();
            *least += u64::from(write.fate == Fate::Acked && is_safe(world, write));
            *most += 1;
        }
    }
    let dropped = sums(ledger, |row| reasons(&row.dropped));
    let crash_harms = |&(_, power): &(Duration, bool)| power || world.setup.safety == Safety::Memory;
    let harmed = world.log_may_fail || world.crashes.borrow().iter().any(crash_harms);
    let nothing_is_dropped = world.setup.full == Full::Reject && !harmed;
    let accepted = sums(ledger, |row| row.accepted);
    let settled = sums(ledger, |row| row.delivered + reasons(&row.rejected) + reasons(&row.dropped));
    for ((db, backend), (least, most)) in counted {
        let key = &(db, backend);
        let has = accepted.get(key).copied().unwrap_or(0);
        if has < least || has > most {
            world.broken(ACCOUNTS, format!("db{db} on b{backend}: {has} accepted, clients count {least} to {most}"));
        }
        let gone = dropped.get(key).copied().unwrap_or(0);
        if gone > 0 && nothing_is_dropped {
            world.broken(ACCOUNTS, format!("db{db} on b{backend}: {gone} dropped, for no reason"));
        }
        let settled = settled.get(key).copied().unwrap_or(0);
        if settled != has {
            world.broken(ACCOUNTS, format!("db{db} on b{backend}: {has} accepted, {settled} settled"));
        }
    }
}

/// What no fault concerned was delivered soon.
fn lateness(world: &World, writes: &[Write]) {
    let troubles = world.troubles.borrow();
    for (number, write) in writes.iter().enumerate().filter(|(_, w)| w.fate == Fate::Acked) {
        for &owner in world.owners(write.place).iter() {
            let Some(applied) = world.backends[owner].borrow().influx.applied.get(number) else { continue };
            if applied.saturating_sub(write.end) <= LATE {
                continue;
            }
            let mut excused: Vec<_> = troubles
                .iter()
                .filter(|t| t.backend.is_none_or(|b| b == owner) && t.db.is_none_or(|db| db == write.place.db))
                .map(|t| (t.from.max(write.end), t.until.min(applied)))
                .filter(|(from, until)| from < until)
                .collect();
            excused.sort();
            let (mut sum, mut at) = (Duration::ZERO, Duration::ZERO);
            for (from, until) in excused {
                sum += until.saturating_sub(from.max(at));
                at = at.max(until);
            }
            let late = applied.saturating_sub(write.end).saturating_sub(sum);
            if late > LATE {
                world.broken(
                    LATENESS,
                    format!("b{owner} got write {number} after {late:?} in which nothing held it up"),
                );
            }
        }
    }
}

/// `consistency=all` is answered when no fault concerns what it waits for.
fn unanswered(world: &World) {
    let troubles = world.troubles.borrow();
    for Asked { op, answer, begin, end, .. } in world.alls.borrow().iter() {
        let concerns = |t: &&Trouble| {
            let there = |b: usize| op.points.iter().any(|&p| world.owners(hosts::place(op.db, p)).contains(&b));
            t.backend.is_none_or(there) && t.db.is_none_or(|db| db == op.db) && t.from < *end && t.until > *begin
        };
        let waited = end.saturating_sub(*begin);
        let told = matches!(answer, Some(204 | 400));
        if !told && waited > ANSWERED_WITHIN && !troubles.iter().any(|t| concerns(&t)) {
            world.broken(
                UNANSWERED,
                format!("client {} asked for all circles at {begin:?}: {answer:?} at {end:?}", op.client),
            );
        }
    }
}

/// The answer to `consistency=all` is what the backends said of these very points.
fn verdicts(world: &World, writes: &[Write]) {
    for Asked { op, writes: numbers, answer, end, .. } in world.alls.borrow().iter() {
        if (0..world.backends.len()).any(|backend| world.has_dropped(backend, op.db)) {
            continue;
        }
        // What was refused may have been taken later, when a start repeated it.
        let (mut was_refused, mut is_refused) = (false, Vec::<usize>::new());
        for number in numbers {
            for &owner in world.owners(writes[*number].place) {
                let influx = &world.backends[owner].borrow().influx;
                if influx.refused.contains_key(number) {
                    was_refused = true;
                    is_refused.extend((!influx.applied.has(*number)).then_some(*number));
                }
            }
        }
        let lacks = |owner: usize| {
            let influx = &world.backends[owner].borrow().influx;
            let has = |number: &&usize| influx.applied.has(**number) || influx.refused.contains_key(*number);
            numbers.iter().any(|number| world.owners(writes[*number].place).contains(&owner) && !has(&number))
        };
        let lacking: Vec<_> = (0..world.backends.len()).filter(|&owner| lacks(owner)).collect();
        let is_wrong = match answer {
            Some(204) => !is_refused.is_empty() || !lacking.is_empty(),
            Some(400) => !was_refused,
            _ => false,
        };
        if is_wrong {
            let client = op.client;
            let text = format!("refused are {is_refused:?}, and some are not on {lacking:?}");
            world.broken(VERDICT, format!("client {client} was told {answer:?} at {end:?}; {text}"));
        }
    }
}

impl World {
    pub fn asked_all(&self, asked: Asked) {
        assert_eq!(asked.op.level, Level::All);
        self.alls.borrow_mut().push(asked);
    }

    pub fn dropped(&self, backend: usize, db: usize) {
        self.drops.borrow_mut().insert((backend, db));
    }

    /// The server of a backend loses everything.
    pub fn empty(&self, backend: usize) {
        self.emptied.borrow_mut().insert(backend);
        for db in 0..DATABASES {
            self.trouble(Some(backend), Some(db), exec::now(), Duration::MAX);
            self.dropped(backend, db);
            self.backends[backend].borrow_mut().influx.drop_database(db);
        }
    }

    fn is_emptied(&self, backend: usize) -> bool {
        self.emptied.borrow().contains(&backend)
    }

    pub fn has_dropped(&self, backend: usize, db: usize) -> bool {
        self.drops.borrow().contains(&(backend, db))
    }
}
