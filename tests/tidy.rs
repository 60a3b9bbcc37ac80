//! House rules as a test: reads the tree and names every line that breaks one.
//!
//! Test code (files that are only compiled for tests, and what follows `#[cfg(test)]` at the start of a line) may
//! block, lock and read JSON. The rules look at text, not at syntax: simple, and enough for slips.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// Longest file, in lines. More: it has two subjects.
const LINES_MAX: usize = 700;
/// Widest line, comments and texts included.
const COLUMNS_MAX: usize = 120;
/// Definitions of one type name in the whole tree. More: the name does not say which thing it is.
const SAME_NAMES_MAX: usize = 3;

struct SourceFile {
    /// From the project's root, with `/`.
    path: String,
    text: String,
    /// Lines before the first `#[cfg(test)]` that opens a module at the end of the file; none of a test-only file.
    shipped_lines: usize,
}

impl SourceFile {
    /// Lines that end up in the program, without those that are only comments, numbered from 1.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = |(_, line): &(usize, &str)| !line.trim_start().starts_with("//");
        self.text.lines().enumerate().take(self.shipped_lines).filter(code).map(|(index, line)| (index + 1, line))
    }

    fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }
}

/// Every Rust file of the project.
fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the project") {
            let path = entry.expect("a folder of the project").path();
            let name = path.file_name().expect("entries have names").to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
                let path = path.strip_prefix(root).expect("found below it").to_string_lossy().into_owned();
                sources.push(SourceFile { path, text, shipped_lines: 0 });
            }
        }
    }
    let test_only: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let is_test = source.is_under(&["tests/", "control/tests/", "benches/", "fuzz/"])
            || source.path.ends_with("_test.rs")
            || test_only
                .iter()
                .any(|path| source.path == format!("{path}.rs") || source.path == format!("{path}/mod.rs"));
        let lines: Vec<_> = source.text.lines().collect();
        let opens_tests =
            |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
        let shipped = lines.windows(2).position(opens_tests).unwrap_or(lines.len());
        source.shipped_lines = if is_test { 0 } else { shipped };
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 100, "the rules must see the sources");
    sources
}

/// Paths (without `.rs`) of the modules that `source` declares for tests only.
fn test_modules(source: &SourceFile) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let own = file.trim_end_matches(".rs");
    let base = if matches!(own, "mod" | "lib" | "main") { folder.to_owned() } else { format!("{folder}/{own}") };
    let lines: Vec<_> = source.text.lines().collect();
    let for_tests = |line: &str| line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(any(test,");
    let declared =
        |line: &str| Some(line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?.to_owned());
    lines
        .windows(2)
        .filter(|pair| for_tests(pair[0]))
        .filter_map(|pair| declared(pair[1]))
        .map(|name| format!("{base}/{name}"))
        .collect()
}

/// Fails with all of `broken`, if any.
fn assert_kept(rule: &str, broken: impl IntoIterator<Item = String>) {
    let mut text = String::new();
    for place in broken {
        writeln!(text, "  {place}").expect("a String takes everything");
    }
    assert!(text.is_empty(), "{rule}\n{text}");
}

/// Where shipped code of the files under `folders`, but not under `except`, has one of `words`.
fn words_in<'a>(sources: &'a [SourceFile], folders: &'a [&str], except: &'a [&str], words: &'a [&str]) -> Vec<String> {
    let files = sources.iter().filter(|s| s.is_under(folders) && !s.is_under(except));
    let places = files.flat_map(|s| s.shipped().map(move |(number, line)| (s, number, line)));
    places
        .filter(|(_, _, line)| words.iter().any(|word| line.contains(word)))
        .map(|(s, number, line)| format!("{}:{number}: {}", s.path, line.trim()))
        .collect()
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent = sources().into_iter().filter(|s| !s.text.starts_with("//! ")).map(|s| s.path);
    assert_kept("these files do not begin with `//!`:", silent);
}

#[test]
fn no_file_grows_beyond_one_subject() {
    let sources = sources();
    let long = sources.iter().map(|s| (&s.path, s.text.lines().count())).filter(|(_, lines)| *lines > LINES_MAX);
    assert_kept("too long:", long.map(|(path, lines)| format!("{path}: {lines} lines")));
}

#[test]
fn the_data_plane_does_not_know_who_asks_it() {
    let words = ["fluxgate_control", "control::", "fluxgate::"];
    assert_kept("`dataplane` names what lies above it:", words_in(&sources(), &["dataplane/"], &[], &words));
    let words = ["fluxgate::"];
    assert_kept("`control` names what lies above it:", words_in(&sources(), &["control/"], &[], &words));
}

#[test]
fn the_laboratory_knows_nothing_of_what_it_checks() {
    let outside = |line: &str| {
        let line = line.replace("crate::lab::", "");
        ["crate::", "fluxgate_control", "fluxgate_dataplane"].iter().any(|word| line.contains(word))
    };
    let mut broken = Vec::new();
    // Its tests are meant, too, so that all lines are read.
    for source in sources().iter().filter(|s| s.is_under(&["src/lab/"])) {
        let code = source.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        let lines = code.filter(|(_, line)| outside(line));
        broken.extend(lines.map(|(index, line)| format!("{}:{}: {}", source.path, index + 1, line.trim())));
    }
    assert_kept("`src/lab` names the product:", broken);
}

/// The data plane from the top down. A folder or file may use what stands below it, not beside or above it.
const DATA_PLANE: [&[&str]; 10] = [
    &["serve"],
    &["write", "query", "takeover"],
    &["worker"],
    &["request", "routing", "courier"],
    &["disklog", "ledger"],
    &["handoff"],
    &["http", "must_see"],
    &["settings", "order"],
    &["placement", "prometheus", "io"],
    &[
        "lineproto",
        "influxql",
        "tls",
        "topology",
        "limits",
        "stats",
        "precision",
        "one_line",
        "memory",
        "deep",
        "parked",
        "unsaved",
    ],
];

#[test]
fn the_data_plane_keeps_its_layers() {
    let floor = |room: &str| DATA_PLANE.iter().position(|rooms| rooms.contains(&room));
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| s.is_under(&["dataplane/src/"]) && s.path != "dataplane/src/lib.rs") {
        let room = source.path["dataplane/src/".len()..].split(['/', '.']).next().expect("a part before the first");
        for (number, line) in source.shipped() {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().expect("the first part");
                // Plain values, and points that are empty in the product: everybody may use them.
                let allowed = used == room
                    || matches!(used, "crash" | "limits" | "topology" | "precision")
                    || matches!((floor(room), floor(used)), (Some(own), Some(other)) if own < other);
                if !allowed {
                    broken.push(format!("{}:{number}: {room} uses {used}: {}", source.path, line.trim()));
                }
            }
        }
    }
    assert_kept("against the layers of the data plane (`DATA_PLANE` in this file, top first):", broken);
}

#[test]
fn control_keeps_its_layers() {
    // A folder of `control`, and the folders beside it that it may use.
    let layers: [(&str, &[&str]); 5] = [
        ("influx", &[]),
        ("transition", &[]),
        ("query", &["influx"]),
        ("migration", &["influx", "transition"]),
        ("endpoint", &["influx", "migration"]),
    ];
    let sources = sources();
    for (folder, below) in layers {
        let beside = layers.map(|(other, _)| other).into_iter().chain(["event_loop"]);
        let above = beside.filter(|other| *other != folder && !below.contains(other));
        let words: Vec<_> = above.map(|other| format!("crate::{other}")).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let folder = format!("control/src/{folder}/");
        let broken = words_in(&sources, &[&folder], &[], &words);
        assert_kept(
            &format!("{folder} may use only {below:?} of `control`; what the loop is told has its own types:"),
            broken,
        );
    }
}

#[test]
fn the_data_plane_neither_locks_nor_blocks_nor_parses_json() {
    let sources = sources();
    // One lock for each backend, held while a few keys and counts of what is parked and refused are copied.
    let of_parked = ["dataplane/src/order.rs"];
    let words = ["Mutex", "RwLock", "Condvar", "ureq"];
    assert_kept("in shipped code of `dataplane`:", words_in(&sources, &["dataplane/src/"], &of_parked, &words));
    // The `params` of a query and the body around Flux are JSON; writes never are.
    let of_queries =
        ["dataplane/src/influxql/bind.rs", "dataplane/src/influxql/unbind.rs", "dataplane/src/query/flux.rs"];
    assert_kept("in shipped code of `dataplane`:", words_in(&sources, &["dataplane/src/"], &of_queries, &["serde"]));
    // Pauses between attempts before any worker runs: to bind, and in `block_on`, which is for tests and tools.
    let at_start = ["dataplane/src/io/uring/listener.rs", "dataplane/src/io/uring/executor.rs"];
    let words = ["thread::sleep"];
    assert_kept("in shipped code of `dataplane`:", words_in(&sources, &["dataplane/src/"], &at_start, &words));
    for file in at_start {
        assert_eq!(words_in(&sources, &[file], &[], &words).len(), 1, "{file}: one pause is known");
    }
}

#[test]
fn parsers_are_pure() {
    let pure =
        ["lineproto", "http", "influxql", "placement", "prometheus"].map(|room| format!("dataplane/src/{room}/"));
    let pure = pure.each_ref().map(String::as_str);
    let words = ["crate::io", "glommio", "std::io", "std::net", "std::fs", "std::thread", "Instant::now", "async "];
    let comparisons = ["dataplane/src/http/fuzz.rs"];
    assert_kept("I/O in a parser:", words_in(&sources(), &pure, &comparisons, &words));
}

#[test]
fn only_a_few_files_name_the_runtime() {
    let except = ["dataplane/src/io/", "dataplane/src/disklog/store/"];
    assert_kept(
        "these name glommio:",
        words_in(&sources(), &["src/", "control/src/", "dataplane/src/"], &except, &["glommio::"]),
    );
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file keeps the rule as well.
    let words = ["TO DO", "FIX ME", "XX X", "to do!(", "unimple mented!(", "d bg!("].map(|word| word.replace(' ', ""));
    let broken = sources().into_iter().flat_map(|s| {
        let lines = s.text.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        lines.map(|(index, line)| format!("{}:{}: {}", s.path, index + 1, line.trim())).collect::<Vec<_>>()
    });
    assert_kept("left for later:", broken);
}

#[test]
fn no_source_names_a_place_on_somebodys_machine() {
    let words = ["/wo rk/", "/tmp/ wt", "/ro ot/", "/ho me/", "/Us ers/"].map(|word| word.replace(' ', ""));
    let broken = sources().into_iter().flat_map(|s| {
        let lines = s.text.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        lines.map(|(index, line)| format!("{}:{}: {}", s.path, index + 1, line.trim())).collect::<Vec<_>>()
    });
    assert_kept("paths that exist on one machine only:", broken);
}

#[test]
fn every_limit_says_what_happens_at_it() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| s.path.ends_with("/limits.rs")) {
        let mut documented = false;
        for (index, line) in source.text.lines().enumerate() {
            // Limits that directly follow one another share the comment above them.
            documented = line.starts_with("///") || (documented && line.starts_with("pub const"));
            if line.starts_with("pub const") && !documented {
                broken.push(format!("{}:{}: {line}", source.path, index + 1));
            }
        }
    }
    assert_kept("limits without a comment:", broken);
}

#[test]
fn no_line_is_wider_than_a_screen() {
    let mut broken = Vec::new();
    for source in &sources() {
        let wide = source.text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS_MAX);
        broken.extend(wide.map(|(index, _)| format!("{}:{}", source.path, index + 1)));
    }
    assert_kept(&format!("lines over {COLUMNS_MAX} columns:"), broken);
}

#[test]
fn a_type_name_says_which_thing_it_is() {
    let sources = sources();
    let mut places = BTreeMap::<&str, Vec<&str>>::new();
    for source in &sources {
        for line in source.text.lines() {
            let words: Vec<_> =
                line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
            let after_visibility = words.iter().skip_while(|word| ["pub", "crate", "super"].contains(word));
            if let [kind, name, ..] = after_visibility.copied().collect::<Vec<_>>()[..]
                && ["struct", "enum", "trait"].contains(&kind)
                && !line.trim_start().starts_with("//")
            {
                places.entry(name).or_default().push(&source.path);
            }
        }
    }
    let broken = places.into_iter().filter(|(_, files)| files.len() > SAME_NAMES_MAX);
    assert_kept("defined too often:", broken.map(|(name, files)| format!("{name}: {}", files.join(", "))));
}

#[test]
fn every_counter_is_read_somewhere() {
    let sources = sources();
    let stats = sources.iter().find(|s| s.path.ends_with("dataplane/src/stats.rs")).expect("the counters");
    let counter = |line: &str| Some(line.trim().strip_prefix("pub ")?.split_once(": Atomic")?.0.to_owned());
    let counters: Vec<_> = stats.text.lines().filter_map(counter).collect();
    assert!(counters.len() > 10, "{counters:?}");
    // Without white space, since calls are broken over lines.
    let shipped = |s: &SourceFile| s.shipped().flat_map(|(_, line)| line.split_whitespace()).collect::<String>();
    let code: String = sources.iter().map(shipped).collect();
    let is_read = |counter: &String| {
        code.match_indices(&format!(".{counter}")).any(|(at, found)| {
            let rest = &code[at + found.len()..];
            !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                && ![".store(", ".fetch_"].iter().any(|write| rest.starts_with(write))
        })
    };
    assert_kept("written, and never read:", counters.into_iter().filter(|counter| !is_read(counter)));
}

#[test]
fn a_kind_of_file_has_one_name() {
    let sources = sources();
    let paths: BTreeSet<_> = sources.iter().map(|s| s.path.as_str()).collect();
    let is_folder = |path: &str| paths.iter().any(|other| other.starts_with(&format!("{path}/")));
    let wrong = |path: &&&str| {
        let file = path.rsplit('/').next().expect("a path has a last part");
        ["tests.rs", "fuzzing.rs"].contains(&file)
            || file.contains("standin")
            || is_folder(path.trim_end_matches(".rs"))
    };
    let broken = paths.iter().filter(wrong).map(ToString::to_string);
    assert_kept("tests are `x_test.rs`, fuzz bodies `fuzz.rs`, stand-ins `stand_in`, folders `x/mod.rs`:", broken);
}

#[test]
fn limits_of_the_data_plane_stand_in_one_file() {
    // What belongs to the runtime stands beside the code that drives it.
    let except = ["dataplane/src/limits.rs", "dataplane/src/io/"];
    let words = [": Duration = ", "BYTES_MAX: u", "BYTES_MIN: u", "PIECE_BYTES: u"];
    let mut broken = words_in(&sources(), &["dataplane/src/"], &except, &words);
    broken.retain(|place| place.contains("const "));
    assert_kept("these belong into dataplane/src/limits.rs, with what happens at them:", broken);
}
