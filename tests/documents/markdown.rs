//! What these tests read of a Markdown file: fenced blocks, headings, links, and names of files between backticks.

use std::path::Path;

/// A fenced block.
pub struct Block {
    /// File and line, for messages.
    pub place: String,
    /// What stands behind the fence.
    pub kind: String,
    pub text: String,
}

pub struct Document {
    path: String,
    pub blocks: Vec<Block>,
    /// As in `#anchor`.
    anchors: Vec<String>,
    /// Line and target.
    pub links: Vec<(usize, String)>,
    /// Line, and what stands between backticks in a sentence.
    pub quoted: Vec<(usize, String)>,
}

impl Document {
    pub fn new(path: &str, text: &str) -> Self {
        let mut document = Self {
            path: path.to_owned(),
            blocks: Vec::new(),
            anchors: Vec::new(),
            links: Vec::new(),
            quoted: Vec::new(),
        };
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            if let Some(kind) = line.strip_prefix("```") {
                let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
                let text = inside.collect::<Vec<_>>().join("\n");
                let place = format!("{path}:{}", index + 1);
                document.blocks.push(Block { place, kind: kind.to_owned(), text });
                continue;
            }
            if line.starts_with('#') {
                document.anchors.push(anchor(line.trim_start_matches('#')));
            }
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            document.links.extend(targets.map(|(target, _)| (index + 1, target.to_owned())));
            assert!(line.matches('`').count() % 2 == 0, "{path}:{}: backticks over the end of a line", index + 1);
            let quoted = line.split('`').skip(1).step_by(2);
            document.quoted.extend(quoted.map(|text| (index + 1, text.to_owned())));
        }
        document
    }

    /// Line and path of all that looks like a file or folder of the sources.
    pub fn files(&self) -> impl Iterator<Item = (usize, &str)> {
        self.quoted.iter().filter(|(_, text)| is_file(text)).map(|(line, text)| (*line, &text[..]))
    }

    /// Whether a link of this document leads to a file, and to a heading in it. Links to elsewhere are not looked at.
    pub fn leads_somewhere(&self, root: &Path, target: &str) -> bool {
        if target.contains("://") {
            return true;
        }
        let (file, heading) = target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
        let has = |document: &Self| heading.is_none_or(|heading| document.anchors.iter().any(|a| a == heading));
        if file.is_empty() {
            return has(self);
        }
        let path = root.join(&self.path).parent().expect("a file has a folder").join(file);
        match std::fs::read_to_string(&path) {
            Ok(text) => has(&Self::new(file, &text)),
            Err(_) => heading.is_none() && path.is_dir(),
        }
    }
}

/// GitHub's anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Whether this is meant as a file or folder of the sources.
fn is_file(text: &str) -> bool {
    let roots = ["src/", "control/", "dataplane/", "tests/", "benches/", "fuzz/", "sim/"];
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'));
    plain && roots.iter().any(|root| text.starts_with(root))
}

/// Whether `output` is what `want` says; `...` in it stands for anything.
pub fn is_like(output: &str, want: &str) -> bool {
    let (output, want) = (output.trim(), want.trim());
    let mut pieces = want.split("...");
    let Some(mut rest) = output.strip_prefix(pieces.next().expect("a text has a first piece")) else { return false };
    let mut pieces: Vec<_> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}
