//! Checks regular expressions in Go's RE2 syntax, as far as that is cheap and certain.
//!
//! InfluxDB compiles each regular expression while it parses, so an invalid one prevents every statement of the text
//! from running. [`is_bad`] finds only what Go certainly refuses. A backend refuses the rest (a repetition above 1000,
//! an unknown class name, a range from high to low).

/// Whether Go refuses `pattern`: an unmatched parenthesis or bracket, nothing to repeat, a repeated repetition, an
/// unknown escape or group. One pass.
pub(super) fn is_bad(pattern: &str) -> bool {
    let bytes = pattern.as_bytes();
    let mut at = 0;
    let mut open = 0_usize;
    let mut before = Before::Nothing;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        match byte {
            b'\\' if rest.starts_with(b"\\Q") => {
                // Literal up to `\E` or the end. Its last character can be repeated.
                let literal = pattern[at + 2..].find("\\E").unwrap_or(bytes.len() - at - 2);
                if literal > 0 {
                    before = Before::Something;
                }
                at = (at + 2 + literal + 2).min(bytes.len());
                continue;
            }
            b'\\' if rest.starts_with(b"\\E") => at += 2,
            b'\\' => match escape(rest) {
                Some(width) => {
                    at += width;
                    before = Before::Something;
                }
                None => return true,
            },
            b'[' => match class(rest) {
                Some(width) => {
                    at += width;
                    before = Before::Something;
                }
                None => return true,
            },
            b'(' => match group(rest) {
                Some((width, opens)) => {
                    at += width;
                    open += usize::from(opens);
                    before = Before::Nothing;
                }
                None => return true,
            },
            b')' => {
                let Some(rest) = open.checked_sub(1) else { return true };
                open = rest;
                at += 1;
                before = Before::Something;
            }
            b'|' => {
                at += 1;
                before = Before::Nothing;
            }
            b'*' | b'+' | b'?' => {
                if before != Before::Something {
                    return true;
                }
                at += 1 + usize::from(rest.get(1) == Some(&b'?'));
                before = Before::Repetition;
            }
            b'{' => match repetition(rest) {
                Some(_) if before != Before::Something => return true,
                Some(width) => {
                    at += width + usize::from(rest.get(width) == Some(&b'?'));
                    before = Before::Repetition;
                }
                None => {
                    at += 1;
                    before = Before::Something;
                }
            },
            _ => {
                at += 1;
                before = Before::Something;
            }
        }
    }
    open > 0
}

/// What comes before a repetition.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Something,
    Repetition,
}

/// Length of the escape at the start of `rest`. None: Go has no such escape.
fn escape(rest: &[u8]) -> Option<usize> {
    match rest.get(1)? {
        b'8' | b'9' => None,
        b'0'..=b'7' => Some(2),
        b'x' => {
            let hex = match rest.get(2)? {
                b'{' => rest[3..].iter().position(|&byte| byte == b'}').filter(|&digits| digits > 0)?,
                digit if digit.is_ascii_hexdigit() => return rest.get(3)?.is_ascii_hexdigit().then_some(4),
                _ => return None,
            };
            rest[3..3 + hex].iter().all(u8::is_ascii_hexdigit).then_some(hex + 4)
        }
        b'p' | b'P' => match rest.get(2)? {
            b'{' => Some(rest.iter().position(|&byte| byte == b'}')? + 1),
            byte if byte.is_ascii() => Some(3),
            _ => None,
        },
        b'A' | b'z' | b'b' | b'B' | b'C' | b'd' | b'D' | b's' | b'S' | b'w' | b'W' | b'a' | b'f' | b'n' | b'r'
        | b't' | b'v' => Some(2),
        byte if byte.is_ascii_alphanumeric() || !byte.is_ascii() => None,
        _ => Some(2),
    }
}

/// Length of the class `[...]` at the start of `rest`. None: it does not end, or has an invalid escape.
fn class(rest: &[u8]) -> Option<usize> {
    let mut at = 1 + usize::from(rest.get(1) == Some(&b'^'));
    let first = at;
    loop {
        match rest.get(at)? {
            b']' if at > first => return Some(at + 1),
            b'[' if rest[at..].starts_with(b"[:") => {
                // `[:alpha:]`, or only a bracket and a colon.
                let name = rest[at + 2..].iter().take_while(|byte| byte.is_ascii_lowercase() || **byte == b'^').count();
                let end = at + 2 + name;
                at = if rest[end..].starts_with(b":]") { end + 2 } else { at + 1 };
            }
            b'\\' => at += escape(&rest[at..])?,
            _ => at += 1,
        }
    }
}

/// Length of the group's beginning at the start of `rest`, and whether it opens a group (`(?i)` does not). None: there
/// is no such group.
fn group(rest: &[u8]) -> Option<(usize, bool)> {
    if rest.get(1) != Some(&b'?') {
        return Some((1, true));
    }
    if rest.starts_with(b"(?P<") || rest.starts_with(b"(?<") {
        let start = rest.iter().position(|&byte| byte == b'<')? + 1;
        let name = rest[start..].iter().position(|&byte| byte == b'>')?;
        let sound =
            name > 0 && rest[start..start + name].iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        return sound.then_some((start + name + 1, true));
    }
    let flags = rest[2..].iter().take_while(|byte| b"imsU-".contains(byte)).count();
    match rest.get(2 + flags)? {
        b':' => Some((3 + flags, true)),
        b')' if flags > 0 => Some((3 + flags, false)),
        _ => None,
    }
}

/// Length of `{2}`, `{2,}` or `{2,3}` at the start of `rest`. Other text in braces is literal.
fn repetition(rest: &[u8]) -> Option<usize> {
    let digits = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = 1 + digits(1);
    if at == 1 {
        return None;
    }
    if rest.get(at) == Some(&b',') {
        at += 1;
        at += digits(at);
    }
    (rest.get(at) == Some(&b'}')).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_compiles_passes() {
        for pattern in [
            "",
            "a",
            "^cpu.*$",
            "a|b",
            "|",
            "()",
            "(a|b)+?c{2,3}",
            "[]a]",
            "[^]a]",
            "[[:alpha:]-_]",
            "[[a]",
            "a{",
            "{a}",
            "a{,3}",
            "(?i)a",
            "(?i:a)",
            "(?P<name>a)",
            r"\Q(*\E+",
            r"\Q[",
            r"a\.b",
            r"a\/b",
            r"\d+\pL\p{Greek}",
            r"\x41\x{1F600}",
            r"[\]]",
            r"a\\",
            "a??",
            "été*",
            r"\_",
            r"[\w.-]+",
        ] {
            assert!(!is_bad(pattern), "{pattern}");
        }
    }

    #[test]
    fn what_go_certainly_refuses_is_bad() {
        for pattern in [
            "*", "+a", "a|*", "(*)", "a**", "a+*", "a???", "{2}", "a{2}{3}", "(", "a)", "(a", "[", "[]", "[^]", "[a",
            r"\", r"a\", r"\y", r"\8", "(?=a)", "(?!a)", "(?<=a)", "(?", "(?P<>a)", "(?P<a", "* c *", r"\x", r"\x{}",
            r"\xg0",
        ] {
            assert!(is_bad(pattern), "{pattern}");
        }
    }
}
