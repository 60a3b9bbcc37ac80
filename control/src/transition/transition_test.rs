//! Tests of transitions: what a start finds from the file and the configuration, and what restarts keep.

use fluxgate_dataplane::placement::{HashKey, Place};
use fluxgate_dataplane::topology::{Backend, BackendId};

use super::*;

/// One circle; a backend whose name begins with `-` is leaving.
fn circle(names: &[&str]) -> Topology {
    circles(&[("c", names)])
}

fn circles(list: &[(&str, &[&str])]) -> Topology {
    let mut topology = Topology::default();
    for (name, backends) in list {
        let backend = |name: &&str| {
            let plain = name.trim_start_matches('-');
            let (username, password) = ("user".to_owned(), "secret".to_owned());
            let leaving = name.starts_with('-');
            Backend { username, password, leaving, ..Backend::new(plain, format!("http://{plain}")) }
        };
        topology.add_circle(*name, backends.iter().map(backend));
    }
    topology
}

struct DataDir {
    dir: tempfile::TempDir,
}

impl DataDir {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        Transitions::file_in(self.dir.path())
    }

    fn start(&self, topology: &Topology) -> Transitions {
        self.start_with(topology, &PlacementSettings::default())
    }

    fn start_with(&self, topology: &Topology, settings: &PlacementSettings) -> Transitions {
        let preview = Transitions::preview(&self.file(), topology, settings).unwrap();
        let transitions = Transitions::open(&self.file(), topology, settings).unwrap();
        assert_eq!(transitions.changes(), preview, "a check says what a start finds");
        transitions
    }
}

/// A measurement that has a former owner.
fn moving(transitions: &Transitions) -> String {
    (0..1000)
        .map(|i| format!("m{i}"))
        .find(|m| transitions.is_moving(0, Place::new("db", m)))
        .expect("one of a thousand")
}

fn reads_from_owner(transitions: &Transitions, name: &str) -> bool {
    let placement = transitions.placement();
    let place = Place::new(&b"db"[..], name.as_bytes());
    placement.reader(0, place) == placement.owner(0, place)
}

fn former_names(transitions: &Transitions) -> Option<Vec<String>> {
    transitions.of(0).as_ref().map(names)
}

#[test]
fn a_first_start_and_an_unchanged_one_make_no_transition() {
    let data_dir = DataDir::new();
    for _ in 0..2 {
        let transitions = data_dir.start(&circle(&["a", "b"]));
        assert_eq!((transitions.changes(), transitions.of(0)), (&[][..], None));
        assert!(!transitions.placement().in_transition(0));
    }
    let text = std::fs::read_to_string(data_dir.file()).unwrap();
    assert!(text.contains("http://a") && !text.contains("secret") && !text.contains("user"), "{text}");
}

#[test]
fn an_unchanged_start_writes_nothing() {
    let data_dir = DataDir::new();
    data_dir.start(&circle(&["a", "b"]));
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(data_dir.file()).unwrap());
    let before = inode();
    data_dir.start(&circle(&["a", "b"]));
    assert_eq!(inode(), before);
    data_dir.start(&circle(&["a", "b", "c"]));
    assert_ne!(inode(), before, "the file is never changed in place");
}

#[test]
fn a_transition_and_its_marks_survive_restarts_until_it_ends() {
    let data_dir = DataDir::new();
    data_dir.start(&circle(&["a", "b"]));
    let after = circle(&["a", "b", "c"]);
    let transitions = data_dir.start(&after);
    assert_eq!(former_names(&transitions).unwrap(), ["a", "b"]);
    let name = moving(&transitions);
    assert!(!reads_from_owner(&transitions, &name));
    transitions.mark_moved(0, &[Place::new("db", &*name).owned()]).unwrap();
    assert!(reads_from_owner(&transitions, &name) && transitions.is_moving(0, Place::new("db", &name)));

    let transitions = data_dir.start(&after);
    assert_eq!(former_names(&transitions).unwrap(), ["a", "b"]);
    assert_eq!(transitions.placement().version(), 0);
    assert!(reads_from_owner(&transitions, &name) && transitions.is_moving(0, Place::new("db", &name)));
    transitions.end(0, false).unwrap();
    assert!(!transitions.is_moving(0, Place::new("db", &name)) && !transitions.placement().in_transition(0));

    let transitions = data_dir.start(&after);
    assert_eq!((transitions.of(0), transitions.changes().len()), (None, 0));
    assert!(transitions.mark_moved(0, &[]).unwrap_err().contains("not in transition"));
}

#[test]
fn a_second_change_keeps_the_first_ring_and_forgets_the_marks() {
    let data_dir = DataDir::new();
    data_dir.start(&circle(&["a", "b"]));
    let transitions = data_dir.start(&circle(&["a", "b", "c"]));
    let name = moving(&transitions);
    transitions.mark_moved(0, &[Place::new("db", &*name).owned()]).unwrap();
    let transitions = data_dir.start(&circle(&["a", "b", "c", "d"]));
    assert_eq!(former_names(&transitions).unwrap(), ["a", "b"]);
    assert!(!transitions.placement().has_moved(0, Place::new(b"db", name.as_bytes())));
    assert!(transitions.changes()[0].again && transitions.changes()[0].to_string().contains("changed again"));
    // Back to the first ring: everything is in place, since these backends have received all writes.
    let transitions = data_dir.start(&circle(&["a", "b"]));
    assert_eq!((transitions.of(0), transitions.changes().len()), (None, 0));
}

/// What each backend says it holds.
fn survey(found: &[Option<&[&str]>]) -> Survey {
    let names = |names: &&[&str]| names.iter().map(|name| Place::new("db", *name).owned()).collect();
    Survey(found.iter().map(|found| found.as_ref().map(names)).collect())
}

#[test]
fn names_with_a_backslash_begin_in_transition_where_influx_proxy_has_written_them() {
    let topology = circle(&["a", "b"]);
    let plain = Placement::new(&topology, &PlacementSettings::default());
    let owner = |name: &str| plain.owner(0, Place::new("db", name).bytes()).index();
    // Belongs to b, and influx-proxy writes it to a.
    let belongs_to_b = |name: &String| owner(name) == 1 && owner(&name.replace('\\', "")) == 0;
    let names: Vec<_> = (0..1000).map(|n| format!("C:\\m{n}")).filter(belongs_to_b).take(3).collect();
    let (one, two, new) = (&names[0][..], &names[1][..], &names[2][..]);
    let alike = (0..1000).map(|n| format!("D:\\m{n}")).find(|m| owner(m) == owner(&m.replace('\\', ""))).unwrap();
    let start = |found: &[Option<&[&str]>]| {
        let data_dir = DataDir::new();
        let survey = || survey(found);
        let settings = PlacementSettings::default();
        (Transitions::open_after(&data_dir.file(), &topology, &settings, false, survey).unwrap(), data_dir)
    };
    for (found, starts, first_at_owner) in [
        (&[Some(&[][..]), Some(&[][..])][..], false, false),
        (&[None, None], true, false),
        (&[Some(&[]), None], true, false),
        (&[None, Some(&[])], true, false),
        (&[Some(&[&alike[..]]), Some(&[&alike])], false, false),
        (&[Some(&[]), Some(&[one])], false, false),
        (&[Some(&[one]), Some(&[])], true, false),
        (&[Some(&[one]), Some(&[one])], true, false),
        (&[Some(&[two]), Some(&[one])], true, true),
        (&[Some(&[one]), None], true, false),
        (&[None, Some(&[one])], true, false),
    ] {
        let (transitions, data_dir) = start(found);
        assert_eq!(transitions.of(0).is_some(), starts, "{found:?}");
        assert_eq!(transitions.changes().len(), usize::from(starts), "{found:?}");
        let moves = |name| transitions.is_moving(0, Place::new("db", name));
        let is_moving = [one, new, "m", &alike].map(moves);
        assert_eq!(is_moving, [starts && !first_at_owner, starts, false, false], "{found:?}");
        if !starts {
            continue;
        }
        let text = transitions.changes()[0].to_string();
        assert!(text.contains("backslash") && text.contains("run a rebalance"), "{text}");
        for transitions in [transitions, data_dir.start(&topology)] {
            assert_eq!(reads_from_owner(&transitions, one), first_at_owner, "{found:?}");
            assert!(!reads_from_owner(&transitions, new), "{found:?}");
            assert!(transitions.changes()[0].backslashes && !transitions.changes()[0].again);
        }
        // A further change keeps it: both places have got all writes.
        let more = data_dir.start(&circle(&["a", "b", "c"]));
        assert!(more.of(0).unwrap().as_written.is_some() && more.changes()[0].again && !more.changes()[0].backslashes);
        let transitions = data_dir.start(&topology);
        transitions.end(0, false).unwrap();
        assert_eq!(data_dir.start(&topology).of(0), None);
    }
}

#[test]
fn names_that_influx_proxy_had_moved_are_found_after_each_further_change() {
    let topology = circle(&["a", "b"]);
    let settings = PlacementSettings::default();
    let plain = Placement::new(&topology, &settings);
    let owner = |name: &str| plain.owner(0, Place::new("db", name).bytes()).index();
    let belongs_to_b = |name: &String| owner(name) == 1 && owner(&name.replace('\\', "")) == 0;
    let names: Vec<_> = (0..1000).map(|n| format!("C:\\m{n}")).filter(belongs_to_b).take(50).collect();
    let moved: Vec<_> = names[1..].iter().map(String::as_str).collect();
    let mut elsewhere = topology.clone();
    elsewhere.backends[1].url = "http://other".to_owned();
    let data_dir = DataDir::new();
    let first = || survey(&[Some(&[&names[0][..]]), Some(&moved)]);
    let surveyed = Transitions::open_after(&data_dir.file(), &topology, &settings, false, first).unwrap();
    let restarts = [&elsewhere, &topology, &circle(&["a", "b", "c"])].map(|topology| data_dir.start(topology));
    for transitions in [surveyed].into_iter().chain(restarts) {
        let placement = transitions.placement();
        for (name, at) in names.iter().zip([0].into_iter().chain([1; 49])) {
            let place = Place::new("db", &**name);
            assert_eq!(placement.reader(0, place.bytes()), BackendId(at), "{name}");
            let owner = placement.owner(0, place.bytes());
            // Only what lies elsewhere is written twice.
            assert_eq!(transitions.is_moving(0, place), owner != BackendId(at), "{name}");
        }
    }
    let more = data_dir.start(&circle(&["a", "b", "c"])).placement();
    assert!(moved.iter().any(|name| more.owner(0, Place::new("db", *name).bytes()) == BackendId(2)));
}

#[test]
fn names_with_a_backslash_are_looked_for_again_after_influx_proxy_has_run_again() {
    let topology = circle(&["a", "b"]);
    let settings = PlacementSettings::default();
    let plain = Placement::new(&topology, &settings);
    let owner = |name: &str| plain.owner(0, Place::new("db", name).bytes()).index();
    let belongs_to_b = |name: &String| owner(name) == 1 && owner(&name.replace('\\', "")) == 0;
    let names: Vec<_> = (0..1000).map(|n| format!("C:\\m{n}")).filter(belongs_to_b).take(2).collect();
    let (one, two) = (&names[0][..], &names[1][..]);
    for (found, has_run, starts, one_at_owner) in [
        (&[Some(&[one][..]), Some(&[][..])][..], false, false, true),
        (&[Some(&[one]), Some(&[])], true, true, false),
        (&[Some(&[]), Some(&[one])], true, false, true),
        // What is read stays where it is: the owner has all that was moved to it.
        (&[Some(&[one]), Some(&[one])], true, false, true),
        (&[Some(&[one, two]), Some(&[one])], true, true, true),
        (&[Some(&[one]), None], true, false, true),
        (&[None, None], true, false, true),
    ] {
        let data_dir = DataDir::new();
        data_dir.start(&topology);
        let again = Transitions::open_after(&data_dir.file(), &topology, &settings, has_run, || survey(found)).unwrap();
        assert_eq!(again.changes().len(), usize::from(starts), "{found:?}");
        for transitions in [again, data_dir.start(&topology)] {
            assert_eq!(transitions.of(0).is_some(), starts, "{found:?}");
            assert_eq!(reads_from_owner(&transitions, one), one_at_owner, "{found:?}");
            assert_eq!(reads_from_owner(&transitions, two), !starts, "{found:?}");
        }
    }
}

#[test]
fn a_leaving_backend_is_a_former_owner_also_at_the_very_first_start() {
    let data_dir = DataDir::new();
    let leaving = circle(&["a", "-b", "c"]);
    let transitions = data_dir.start(&leaving);
    assert_eq!(former_names(&transitions).unwrap(), ["a", "b", "c"]);
    assert_eq!(transitions.changes()[0].now, ["a", "c"]);
    transitions.end(0, false).unwrap();
    assert_eq!(data_dir.start(&leaving).of(0), None);
    // Then it can be removed.
    assert_eq!(data_dir.start(&circle(&["a", "c"])).of(0), None);
}

#[test]
fn circles_of_one_name_are_told_apart_by_their_backends() {
    let data_dir = DataDir::new();
    let twins = |second: &[&str]| circles(&[("c", &["a", "b"]), ("c", second)]);
    for _ in 0..2 {
        assert_eq!(data_dir.start(&twins(&["x", "y"])).changes(), &[][..]);
    }
    let transitions = data_dir.start(&twins(&["x", "y", "z"]));
    assert!(!transitions.placement().in_transition(0) && transitions.placement().in_transition(1));
    assert_eq!(transitions.changes()[0].before, ["x", "y"]);
}

#[test]
fn a_backend_that_was_missing_once_is_not_read_again() {
    let data_dir = DataDir::new();
    data_dir.start(&circle(&["a", "b", "c"]));
    let transitions = data_dir.start(&circle(&["a", "b"]));
    assert_eq!(transitions.changes()[0].gone, ["c"]);
    assert!(transitions.changes()[0].to_string().contains("mark it `leaving`"));
    let back = data_dir.start(&circle(&["a", "b", "c"]));
    let c = BackendId(2);
    assert!((0..200).all(|i| back.placement().former(0, Place::new(b"db", format!("m{i}").as_bytes())) != Some(c)));
    assert_eq!(back.changes()[0].gone, ["c"]);
}

#[test]
fn hash_settings_change_a_ring_and_urls_only_where_they_are_the_hash_key() {
    let data_dir = DataDir::new();
    let topology = circle(&["a", "b", "c"]);
    data_dir.start(&topology);
    let mut elsewhere = topology.clone();
    elsewhere.backends[0].url = "http://other".to_owned();
    assert_eq!(data_dir.start(&elsewhere).of(0), None);
    let by_name = PlacementSettings { hash_key: HashKey::Name, ..Default::default() };
    let transitions = data_dir.start_with(&topology, &by_name);
    assert_eq!(transitions.of(0).unwrap().settings.hash_key, HashKey::Idx);
    moving(&transitions);
}

#[test]
fn circles_are_found_by_name_or_by_a_backend_and_a_new_one_is_reported() {
    let data_dir = DataDir::new();
    data_dir.start(&circles(&[("one", &["a", "b"]), ("two", &["x"])]));
    let transitions = data_dir.start(&circles(&[("two", &["x"]), ("uno", &["a", "b", "c"]), ("three", &["y"])]));
    assert_eq!(transitions.of(0), None);
    assert_eq!(names(&transitions.of(1).unwrap()), ["a", "b"]);
    let texts: Vec<_> = transitions.changes().iter().map(ToString::to_string).collect();
    assert!(texts[0].starts_with("uno is in transition: its backends were a, b, and are a, b, c"), "{texts:?}");
    assert!(texts[1].starts_with("three is new"), "{texts:?}");
}

#[test]
fn an_invalid_file_stops_the_start_and_stays() {
    let data_dir = DataDir::new();
    for text in [
        "",
        "{}",
        r#"{"version":2,"circles":[]}"#,
        r#"{"version":1,"circles":[{"name":"c","ring":
        {"hash_key":"idx","vnode_size":0,"shard_key":"%db","hash":"crc32","members":[]}}]}"#,
    ] {
        std::fs::write(data_dir.file(), text).unwrap();
        let error = Transitions::open(&data_dir.file(), &circle(&["a"]), &PlacementSettings::default()).unwrap_err();
        assert!(error.contains("circles.json says where data lies"), "{error}");
        assert_eq!(std::fs::read_to_string(data_dir.file()).unwrap(), text);
    }
}

#[test]
fn a_transition_waits_for_all_workers_to_read_and_then_write_only_at_the_owners() {
    let data_dir = DataDir::new();
    data_dir.start(&circle(&["a", "b"]));
    let transitions = data_dir.start(&circle(&["a", "b", "c"]));
    let name = moving(&transitions);
    let stats = Arc::new(Stats::new(2, 3, 1));
    let (sender, receiver) = crossbeam::channel::unbounded();
    transitions.attach(sender, Arc::clone(&stats));
    let next = || match receiver.recv_timeout(std::time::Duration::from_secs(10)) {
        Ok(placement) => placement,
        other => panic!("{other:?}"),
    };
    let ending = transitions.clone();
    let end = thread::spawn(move || ending.end(0, false));
    let settled = next();
    let owner = settled.owner(0, Place::new(b"db", name.as_bytes()));
    assert_eq!(settled.reader(0, Place::new(b"db", name.as_bytes())), owner);
    assert!(settled.former(0, Place::new(b"db", name.as_bytes())).is_some(), "still written to");
    let take = |worker: usize, placement: &Placement| {
        stats.workers[worker].placement_version.store(placement.version(), std::sync::atomic::Ordering::Release);
    };
    take(0, &settled);
    thread::sleep(std::time::Duration::from_millis(50));
    assert!(receiver.is_empty() && transitions.of(0).is_some(), "one worker may still read from the former owner");
    take(1, &settled);
    let ended = next();
    assert_eq!(ended.former(0, Place::new(b"db", name.as_bytes())), None);
    take(0, &ended);
    thread::sleep(std::time::Duration::from_millis(50));
    assert!(!end.is_finished(), "one worker may still write to the former owner");
    take(1, &ended);
    end.join().unwrap().unwrap();
    assert_eq!(transitions.of(0), None);
}

#[test]
fn former_owners_are_read_until_the_last_query_from_before_has_ended() {
    let timeout = std::time::Duration::from_secs(60);
    for has_others in [false, true] {
        let data_dir = DataDir::new();
        data_dir.start(&circle(&["a", "b"]));
        let transitions = data_dir.start(&circle(&["a", "b", "c"]));
        assert_eq!(transitions.former_read_until(0, timeout), None, "it has not ended");
        // Placements of two queries.
        let first = transitions.placement();
        transitions.mark_moved(0, &[Place::new("db", &*moving(&transitions)).owned()]).unwrap();
        let second = transitions.placement();
        transitions.end(0, has_others).unwrap();
        let later = transitions.placement();
        for ends in [first, second] {
            let until = transitions.former_read_until(0, timeout).unwrap();
            assert!(until > std::time::Instant::now() + timeout / 2);
            drop(ends);
        }
        assert_eq!(transitions.former_read_until(0, timeout).is_some(), has_others, "queries of others are not known");
        drop(later);
    }
}
