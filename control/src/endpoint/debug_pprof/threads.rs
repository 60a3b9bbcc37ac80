//! `GET /debug/pprof/goroutine` and `/threadcreate`: the threads of the process, from `/proc`.
//!
//! With `debug=1` text, one line per thread. Otherwise a profile with one sample per thread: the thread's name, and
//! below it the kernel function in which the thread waits, or its state.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;
use std::{fs, path::Path};

use pprof::protos::Profile;

use super::stacks::{self, Stack};
use super::{Action, AdminCall, AdminState, PLAIN, download, not_sniffed, or_failed, response, wants_text};

/// Unit of CPU times in `/proc` (USER_HZ): 1/100 s on all architectures that have io_uring.
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug, PartialEq, Eq)]
struct Thread {
    tid: u32,
    /// At most 15 bytes: the kernel keeps no more.
    name: String,
    /// As in `ps`: R running, S sleeping, D in a disk wait ...
    state: String,
    user: Duration,
    system: Duration,
    /// The kernel function in which the thread waits; empty when it runs, or when the kernel does not say.
    waits_in: String,
}

pub fn decide(_: &AdminState, call: &AdminCall<'_>) -> Action {
    let params = call.query;
    Action::Answer(or_failed(list().and_then(|threads| match wants_text(params) {
        true => Ok(not_sniffed(response(200, PLAIN, table(&threads).into_bytes()))),
        false => download("goroutine", &profile(&threads)),
    })))
}

/// All threads, by number.
fn list() -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc/self/task")? {
        // A thread that has just ended is left out.
        threads.extend(read(&entry?.path()));
    }
    threads.sort_by_key(|thread| thread.tid);
    Ok(threads)
}

fn read(task: &Path) -> Option<Thread> {
    let wchan = fs::read_to_string(task.join("wchan")).unwrap_or_default();
    parse(&fs::read_to_string(task.join("stat")).ok()?, wchan.trim())
}

/// `stat`: number, name in parentheses (which may hold any byte), state; times are the 14th and 15th field.
fn parse(stat: &str, wchan: &str) -> Option<Thread> {
    let (head, fields) = stat.rsplit_once(") ")?;
    let (tid, name) = head.split_once(" (")?;
    let fields: Vec<_> = fields.split(' ').collect();
    let ticks = |index: usize| Some(TICK * fields.get(index)?.parse::<u32>().ok()?);
    Some(Thread {
        tid: tid.parse().ok()?,
        name: name.to_owned(),
        state: (*fields.first()?).to_owned(),
        user: ticks(11)?,
        system: ticks(12)?,
        waits_in: if wchan == "0" { String::new() } else { wchan.to_owned() },
    })
}

fn table(threads: &[Thread]) -> String {
    let mut text = format!("thread profile: total {}\n", threads.len());
    text += "     tid  state    user s  system s  name              waits in\n";
    for Thread { tid, name, state, user, system, waits_in } in threads {
        let (user, system) = (user.as_secs_f64(), system.as_secs_f64());
        let line = format!("{tid:>8}  {state:<5}  {user:>8.2}  {system:>8.2}  {name:<16}  {waits_in}");
        writeln!(text, "{}", line.trim_end()).expect("a String takes everything");
    }
    text
}

fn profile(threads: &[Thread]) -> Profile {
    let places: Vec<_> = threads
        .iter()
        .map(|thread| match &thread.waits_in[..] {
            "" => format!("state {}", thread.state),
            place => place.to_owned(),
        })
        .collect();
    let stacks = threads.iter().zip(&places).map(|(thread, place)| Stack {
        names: vec![&place[..], &thread.name[..]],
        values: [1, (thread.user + thread.system).as_nanos() as i64],
    });
    let stacks: Vec<_> = stacks.collect();
    stacks::profile([("threads", "count"), ("cpu", "nanoseconds")], &stacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (a (b) c) S 1 2 2 0 -1 4194368 9 0 0 0 150 25 0 0 20 0 8 0 5 6 7";

    fn thread() -> Thread {
        parse(STAT, "futex_do_wait").unwrap()
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_is_read_whole() {
        let want = Thread {
            tid: 4711,
            name: "a (b) c".to_owned(),
            state: "S".to_owned(),
            user: Duration::from_millis(1500),
            system: Duration::from_millis(250),
            waits_in: "futex_do_wait".to_owned(),
        };
        assert_eq!(thread(), want);
        assert_eq!(parse(STAT, "0").unwrap().waits_in, "");
        for cut in ["", "4711", "4711 (a", "4711 (a) S 1 2"] {
            assert_eq!(parse(cut, ""), None, "{cut}");
        }
    }

    #[test]
    fn text_has_a_line_per_thread() {
        let want = "thread profile: total 1\n\
                    \u{20}    tid  state    user s  system s  name              waits in\n\
                    \u{20}   4711  S          1.50      0.25  a (b) c           futex_do_wait\n";
        assert_eq!(table(&[thread()]), want);
    }

    #[test]
    fn a_profile_names_each_thread_and_where_it_waits() {
        let running = Thread { name: "w".to_owned(), state: "R".to_owned(), waits_in: String::new(), ..thread() };
        let profile = profile(&[thread(), running]);
        let want = [1, 1_750_000_000];
        assert_eq!(
            stacks::tests::stacks(&profile),
            [(vec!["futex_do_wait", "a (b) c"], &want[..]), (vec!["state R", "w"], &want)]
        );
    }

    #[test]
    fn a_thread_of_this_process_is_found_by_its_name() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::Builder::new().name("to-be-found".to_owned()).spawn(move || stopped.recv().is_err());
        // The new thread sets its name itself, when it runs.
        let found = || list().unwrap().iter().any(|thread| thread.name == "to-be-found");
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !found() {
            assert!(std::time::Instant::now() < deadline, "{:?}", list());
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(stop);
        assert!(waiting.unwrap().join().unwrap());
    }
}
