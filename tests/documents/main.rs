//! Promise: what the documents say can be done. Every command of README.md and docs/*.md is run, in the order in which
//! they stand, by one shell, as a reader would paste them; every link leads somewhere; every source file that is named
//! exists.
//!
//! Not here: whether the table of docs/configuration.md is that of the program.

mod markdown;
mod session;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use markdown::{Block, Document};
use session::{Outcome, Session};

/// README.md is read by people who decide in five minutes.
const README_LINES_MAX: usize = 130;
/// The documents whose order matters: each may use what those before it have started. All others follow.
const ORDER: [&str; 4] = ["README.md", "docs/getting-started.md", "docs/writes.md", "docs/queries.md"];
/// Changes the circles, so it comes last.
const LAST: [&str; 1] = ["docs/operating.md"];
/// Kinds of fenced blocks. A block of another kind could hide a command.
const KINDS: [&str; 10] = ["sh", "console", "output", "text", "json", "toml", "yaml", "ini", "python", "influxql"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> Document {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    Document::new(path, &text)
}

/// Paths of all documents, from the root of the project, in the order in which they are run.
fn paths() -> Vec<String> {
    let files = std::fs::read_dir(root().join("docs")).expect("docs/");
    let files: BTreeSet<String> =
        files.map(|file| format!("docs/{}", file.expect("a file").file_name().to_string_lossy())).collect();
    let rest = files.into_iter().filter(|path| path.ends_with(".md"));
    let rest = rest.filter(|path| !ORDER.contains(&&path[..]) && !LAST.contains(&&path[..]));
    let (first, last) = (ORDER.map(str::to_owned), LAST.map(str::to_owned));
    first.into_iter().chain(rest).chain(last).collect()
}

#[test]
fn every_command_of_the_documents_can_be_pasted() {
    for program in ["bash", "curl", "influx", "influxd", "python3"] {
        let is_there = Command::new(program).arg("--help").output().is_ok();
        assert!(is_there, "{program} is not on PATH: run `make setup`");
    }
    let documents: Vec<Document> = paths().iter().map(|path| read(path)).collect();
    let mut session = Session::new(root(), Path::new(env!("CARGO_BIN_EXE_fluxgate")));
    let mut expected = Vec::new();
    for document in &documents {
        for block in &document.blocks {
            assert!(KINDS.contains(&&block.kind[..]), "{}: a block of kind {:?}", block.place, block.kind);
            match &block.kind[..] {
                "sh" => {
                    session.add(&block.place, &block.text);
                    expected.push((block.place.clone(), None));
                }
                "console" => {
                    let commands: Vec<_> = block.text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
                    session.add(&block.place, &commands.join("\n"));
                    expected.push((block.place.clone(), None));
                }
                "output" => {
                    let (_, output) = expected.last_mut().expect("output follows commands");
                    assert!(output.is_none(), "{}: a second output of the same commands", block.place);
                    *output = Some(session.here(&block.text));
                }
                _ => {}
            }
        }
    }
    // The README says so in a sentence.
    const STOP: &str = "kill $proxy $servers";
    assert!(std::fs::read_to_string(root().join("README.md")).expect("README.md").contains(STOP));
    session.add("the end", &format!("{STOP}\nwait $proxy"));
    let Outcome { outputs, refused, unused } = session.run();
    for (place, want) in expected {
        assert!(want.is_some() || !refused.contains(&place), "{place}: a request is refused, and no output says so");
        let (output, want) = (&outputs[&place], want.as_deref().unwrap_or("..."));
        assert!(markdown::is_like(output, want), "{place}: it printed\n{output}\nand not\n{want}");
    }
    assert!(unused.is_empty(), "commands that no document has any more: {unused:?}");
}

#[test]
fn the_readme_is_short() {
    let lines = std::fs::read_to_string(root().join("README.md")).expect("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines, {README_LINES_MAX} are allowed");
}

#[test]
fn the_readme_names_the_test_command_that_ci_runs() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    let command = ci.lines().find_map(|line| line.trim().strip_prefix("exec ")).expect("a command");
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    for part in command.split(" && ") {
        assert!(readme.contains(part), "README.md does not name {part:?}, which .ci/run runs");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for path in paths().iter().map(String::as_str).chain(["ARCHITECTURE.md", "CHANGELOG.md"]) {
        let document = read(path);
        for (line, target) in &document.links {
            if !document.leads_somewhere(root(), target) {
                broken.push(format!("{path}:{line}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    let readme = read("README.md");
    let is_linked = |path: &String| path == "README.md" || readme.links.iter().any(|(_, target)| target == path);
    let lonely: Vec<_> = paths().into_iter().filter(|path| !is_linked(path)).collect();
    assert!(lonely.is_empty(), "README.md has no link to {lonely:?}");
}

#[test]
fn every_source_file_that_is_named_exists() {
    let mut missing = Vec::new();
    let mut named = 0;
    for path in paths().iter().map(String::as_str).chain(["ARCHITECTURE.md"]) {
        for (line, file) in read(path).files() {
            named += 1;
            if !root().join(file).exists() {
                missing.push(format!("{path}:{line}: {file}"));
            }
        }
    }
    assert!(missing.is_empty(), "files that do not exist:\n{}", missing.join("\n"));
    assert!(named > 40, "only {named} files are named: are they still found?");
}

/// In sentences and tables commands stand with placeholders. They are not run, but what they name must exist.
#[test]
fn every_command_that_a_sentence_names_exists() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("Makefile");
    let mut wrong = Vec::new();
    for path in paths().iter().map(String::as_str).chain(["ARCHITECTURE.md", "CHANGELOG.md"]) {
        for (line, text) in &read(path).quoted {
            let words: Vec<_> = text.split(' ').collect();
            let exists = match words[..] {
                ["fluxgate", ref arguments @ ..] => has_help(arguments),
                ["make", ref targets @ ..] => targets.iter().all(|target| makefile.contains(&format!("\n{target}:"))),
                ["cargo", "test", "--test", name] => {
                    let tests = root().join("tests");
                    name == "NAME" || tests.join(name).is_dir() || tests.join(format!("{name}.rs")).is_file()
                }
                _ => true,
            };
            if !exists {
                wrong.push(format!("{path}:{line}: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "commands that do not exist:\n{}", wrong.join("\n"));
}

/// Whether the help of this command line's command names all its options.
fn has_help(arguments: &[&str]) -> bool {
    let is_name = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase());
    let commands: Vec<_> = arguments.iter().take_while(is_name).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_fluxgate")).args(commands).arg("--help").output().expect("help");
    let help = String::from_utf8_lossy(&output.stdout);
    let mut options = arguments.iter().filter(|word| word.starts_with("--") && **word != "--help");
    output.status.success() && options.all(|option| help.contains(option.trim_matches(|c| c == '[' || c == ']')))
}

/// Else a wrong document could pass.
#[test]
fn mistakes_in_a_document_are_noticed() {
    let text = "# A b\n\n```sh\necho 1\n```\n\n```output\n1\n```\n\n[x](#a-b) [y](#c) [z](none.md) `src/none.rs`\n";
    let document = Document::new("docs/x.md", text);
    let kinds: Vec<_> = document.blocks.iter().map(|Block { kind, text, .. }| (&kind[..], &text[..])).collect();
    assert_eq!(kinds, [("sh", "echo 1"), ("output", "1")]);
    let found: Vec<_> = document.links.iter().map(|(_, to)| document.leads_somewhere(root(), to)).collect();
    assert_eq!(found, [true, false, false]);
    assert!(
        has_help(&["migrate", "resync", "--hours", "3"]) && !has_help(&["none"]) && !has_help(&["check", "--none"])
    );
    assert_eq!(document.files().collect::<Vec<_>>(), [(11, "src/none.rs")]);
    for (output, want, is_like) in [
        ("a\nb", "a\nb", true),
        ("a\nb", "...", true),
        ("a\nxx\nb", "a\n...\nb", true),
        ("a x b", "a ... b", true),
        ("a\nb", "a", false),
        ("a\nb", "b", false),
        ("a x c", "a ... b", false),
        ("", "a...", false),
    ] {
        assert_eq!(markdown::is_like(output, want), is_like, "{output:?} {want:?}");
    }
}
