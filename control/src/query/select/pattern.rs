//! Regular expressions over names of fields and tags: Go's syntax, translated for the `regex` crate.
//!
//! Differences: Go's classes `\d` `\w` `\s` and `\b` are ASCII, a `{` that repeats nothing is literal, brackets do not
//! nest, and `\Q..\E` quotes. The rest of RE2's syntax is the same. Syntax that the crate does not know (octal escapes,
//! `\C`) is an error.

use regex::Regex;

/// # Errors
/// The crate does not accept the pattern.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&translate(pattern))
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let tail = &rest[c.len_utf8()..];
        rest = tail;
        match c {
            '\\' if tail.starts_with('Q') => {
                let literal = &tail[1..];
                let (quoted, after) = literal.split_once("\\E").unwrap_or((literal, ""));
                out.push_str(&regex::escape(quoted));
                rest = after;
            }
            '\\' if tail.starts_with('E') => rest = &tail[1..],
            '\\' => {
                let Some(escaped) = tail.chars().next() else {
                    out.push('\\');
                    break;
                };
                rest = &tail[escaped.len_utf8()..];
                match ascii_class(escaped) {
                    Some(class) => out.push_str(class),
                    None if matches!(escaped, 'b' | 'B') && !in_class => {
                        out.push_str(if escaped == 'b' { "(?-u:\\b)" } else { "(?-u:\\B)" });
                    }
                    None => out.extend(['\\', escaped]),
                }
                // The name of a class, or a number.
                if matches!(escaped, 'p' | 'P' | 'x')
                    && let Some(end) = rest.find('}').filter(|_| rest.starts_with('{'))
                {
                    out.push_str(&rest[..=end]);
                    rest = &rest[end + 1..];
                }
            }
            '[' if in_class => match tail.strip_prefix(':').and_then(|name| name.split_once(":]")) {
                Some((name, after)) => {
                    out.push_str(&format!("[:{name}:]"));
                    rest = after;
                }
                None => out.push_str("\\["),
            },
            '[' => {
                in_class = true;
                out.push('[');
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                // As the first character of a class it is literal.
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = after;
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => out.extend(['\\', c]),
            '{' if !in_class && !is_repetition(tail) => out.push_str("\\{"),
            _ => out.push(c),
        }
    }
    out
}

fn ascii_class(escaped: char) -> Option<&'static str> {
    Some(match escaped {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => "[\\t\\n\\f\\r ]",
        'S' => "[^\\t\\n\\f\\r ]",
        _ => return None,
    })
}

/// Whether `{` before `tail` repeats: `n}`, `n,}`, `n,m}`.
fn is_repetition(tail: &str) -> bool {
    let Some((inside, _)) = tail.split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, text, matches) in [
            ("usage", "usage_user", true),
            ("^usage$", "usage_user", false),
            ("", "x", true),
            (r"^\d$", "٣", false),
            (r"^\w+$", "été", false),
            (r"^.{3}$", "été", true),
            (r"[\d_]$", "a_", true),
            (r"^[^\d]$", "7", false),
            (r"a{", "a{", true),
            (r"^a{2}$", "aa", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"[[]", "[", true),
            (r"[]a]", "]", true),
            (r"^[[:alpha:]&&~]+$", "a&~", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"(?i)USAGE", "usage", true),
            (r"\bidle\b", "a-idle", true),
            (r"^\x41\x{42}$", "AB", true),
            (r"^\p{Greek}$", "α", true),
            (r"^(?P<n>a|b)$", "b", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), matches, "/{pattern}/ on {text}");
        }
        assert!(compile(r"\123").is_err(), "octal");
    }
}
