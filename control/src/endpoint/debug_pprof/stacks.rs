//! Builds a profile from named stacks, so that counted values (not sampled ones) open in `go tool pprof`.

use pprof::protos::{Function, Line, Location, Profile, Sample, ValueType};

use crate::clock::unix_ns;

/// A counted value and the stack it belongs to.
pub struct Stack<'a, const KINDS: usize> {
    /// The innermost name first.
    pub names: Vec<&'a str>,
    /// One per kind.
    pub values: [i64; KINDS],
}

/// `kinds`: what the values count, and in which unit.
pub fn profile<const KINDS: usize>(kinds: [(&str, &str); KINDS], stacks: &[Stack<'_, KINDS>]) -> Profile {
    let mut names = ProfileTables { strings: vec![String::new()], functions: Vec::new() };
    let sample_type = kinds.map(|(kind, unit)| ValueType { ty: names.string(kind), unit: names.string(unit) }).to_vec();
    let sample = stacks.iter().map(|stack| Sample {
        location_id: stack.names.iter().map(|name| names.function(name)).collect(),
        value: stack.values.to_vec(),
        ..Sample::default()
    });
    let sample = sample.collect();
    let location = |function: &Function| Location {
        id: function.id,
        line: vec![Line { function_id: function.id, line: 0 }],
        ..Location::default()
    };
    Profile {
        sample_type,
        sample,
        location: names.functions.iter().map(location).collect(),
        function: names.functions,
        string_table: names.strings,
        time_nanos: unix_ns(),
        ..Profile::default()
    }
}

/// The tables that a profile refers to by number. They are small and searched one by one.
struct ProfileTables {
    /// The first one is empty, as the format requires.
    strings: Vec<String>,
    functions: Vec<Function>,
}

impl ProfileTables {
    fn string(&mut self, text: &str) -> i64 {
        let index = self.strings.iter().position(|known| known == text).unwrap_or_else(|| {
            self.strings.push(text.to_owned());
            self.strings.len() - 1
        });
        index as i64
    }

    /// The id of a function; its only location has the same id.
    fn function(&mut self, name: &str) -> u64 {
        let name = self.string(name);
        if let Some(known) = self.functions.iter().find(|known| known.name == name) {
            return known.id;
        }
        let id = self.functions.len() as u64 + 1;
        self.functions.push(Function { id, name, system_name: name, ..Function::default() });
        id
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Each sample's names and values.
    pub fn stacks(profile: &Profile) -> Vec<(Vec<&str>, &[i64])> {
        let function = |id: u64| {
            let function = profile.function.iter().find(|function| function.id == id).unwrap();
            profile.string_table[function.name as usize].as_str()
        };
        let names = |sample: &Sample| sample.location_id.iter().map(|&id| function(id)).collect();
        profile.sample.iter().map(|sample| (names(sample), &sample.value[..])).collect()
    }

    #[test]
    fn stacks_come_back_from_the_profile() {
        let made = profile(
            [("space", "bytes"), ("parts", "count")],
            &[Stack { names: vec!["a", "b"], values: [1, 2] }, Stack { names: vec!["b"], values: [3, 4] }],
        );
        assert_eq!(stacks(&made), [(vec!["a", "b"], &[1, 2][..]), (vec!["b"], &[3, 4])]);
        let text = |index: i64| made.string_table[index as usize].as_str();
        let kinds: Vec<_> = made.sample_type.iter().map(|kind| (text(kind.ty), text(kind.unit))).collect();
        assert_eq!((text(0), kinds), ("", vec![("space", "bytes"), ("parts", "count")]));
        assert_eq!(made.function.len(), 2, "a name is one function");
    }
}
