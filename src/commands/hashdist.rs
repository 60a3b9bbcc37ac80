//! `fluxgate hashdist`: shows how measurement names would spread over the backends of a configuration.

use std::io::{self, BufRead, Write};

use clap::Args;
use fluxgate_dataplane::placement::{Place, Placement};

use crate::config::Config;

#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct HashdistArgs {
    /// Database of the measurements.
    #[arg(long, default_value = "db")]
    pub db: String,

    /// Number of names to generate when none are given.
    #[arg(long, value_name = "N", default_value_t = 10_000, conflicts_with_all = ["names", "stdin"])]
    pub count: u64,

    /// Read names from standard input, one per line.
    #[arg(long, conflicts_with = "names")]
    pub stdin: bool,

    /// Print for each name the backend of each circle that gets it.
    #[arg(long)]
    pub list: bool,

    /// Measurement names.
    #[arg(value_name = "MEASUREMENT")]
    pub names: Vec<String>,
}

/// Places every name, and prints how many each backend got and how many the ring would give it on average. The names
/// are those of the arguments, or the lines of `input` with `--stdin`, or generated.
pub fn run(args: &HashdistArgs, config: &Config, input: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<()> {
    let topology = &config.data.topology;
    let placement = Placement::new(topology, &config.data.placement);
    let mut counts = vec![0u64; topology.backends.len()];
    let mut names = 0u64;
    let mut route = Vec::new();
    let mut place = |name: &[u8]| {
        route.clear();
        placement.route(Place::new(args.db.as_bytes(), name), &mut route);
        route.iter().for_each(|id| counts[id.index()] += 1);
        names += 1;
        if args.list {
            let backends: Vec<_> = route.iter().map(|&id| &topology.backend(id).name[..]).collect();
            writeln!(out, "{}  {}", String::from_utf8_lossy(name), backends.join("  "))?;
        }
        io::Result::Ok(())
    };
    if args.stdin {
        for line in input.split(b'\n') {
            let line = line?;
            let name = line.strip_suffix(b"\r").unwrap_or(&line);
            if !name.is_empty() {
                place(name)?;
            }
        }
    } else if args.names.is_empty() {
        (0..args.count).try_for_each(|i| place(format!("measurement_{i}").as_bytes()))?;
    } else {
        args.names.iter().try_for_each(|name| place(name.as_bytes()))?;
    }

    writeln!(out, "{names} measurements of database {}", args.db)?;
    let width = topology.backends.iter().map(|backend| backend.name.chars().count()).max().unwrap_or(0);
    for (index, circle) in topology.circles.iter().enumerate() {
        writeln!(out, "  {}", circle.name)?;
        for (id, share) in placement.share(index) {
            let count = counts[id.index()];
            let seen = if names == 0 { 0.0 } else { count as f64 * 100.0 / names as f64 };
            let expected = share * 100.0;
            let name = &topology.backend(id).name;
            writeln!(out, "    {name:width$}  {count:>10}  {seen:6.2} %  (expected {expected:6.2} %)")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn printed(args: HashdistArgs, input: &str) -> String {
        let config = parse(Path::new("p.json"), include_str!("../../tests/golden/proxy.json")).expect("a good file");
        let mut out = Vec::new();
        run(&args, &config, &mut input.as_bytes(), &mut out).expect("memory takes all");
        String::from_utf8(out).expect("text")
    }

    /// Name and count of each backend.
    fn counts(printed: &str) -> Vec<(String, u64)> {
        let row = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        };
        printed.lines().filter(|line| line.contains("expected")).filter_map(row).collect()
    }

    #[test]
    fn given_names_land_where_influx_proxy_puts_them() {
        // As recorded: db1 mem is on the second of two backends, diskio and swap are on the first.
        let want = [("influxdb-1-1", 2), ("influxdb-1-2", 1), ("influxdb-2-1", 2), ("influxdb-2-2", 1)];
        let want: Vec<_> = want.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        let args = HashdistArgs { db: "db1".to_owned(), ..Default::default() };
        let names = vec!["mem".to_owned(), "diskio".to_owned(), "swap".to_owned()];
        assert_eq!(counts(&printed(HashdistArgs { names: names.clone(), ..args.clone() }, "")), want);
        let listed = printed(HashdistArgs { names, list: true, ..args.clone() }, "");
        let first: Vec<_> = listed.lines().take(3).collect();
        let mem = "mem  influxdb-1-2  influxdb-2-2";
        assert_eq!(first, [mem, "diskio  influxdb-1-1  influxdb-2-1", "swap  influxdb-1-1  influxdb-2-1"]);
        assert_eq!(counts(&printed(HashdistArgs { stdin: true, ..args }, "mem\ndiskio\r\n\nswap")), want);
    }

    #[test]
    fn made_up_names_are_all_placed_in_each_circle() {
        let shown = printed(HashdistArgs { db: "db".to_owned(), count: 1000, ..Default::default() }, "");
        let counts = counts(&shown);
        assert_eq!((counts[0].1 + counts[1].1, counts[2].1 + counts[3].1), (1000, 1000), "{shown}");
        assert!(shown.starts_with("1000 measurements of database db\n"), "{shown}");
    }

    #[test]
    fn no_name_at_all_is_no_division_by_zero() {
        let shown = printed(HashdistArgs { db: "db".to_owned(), stdin: true, ..Default::default() }, "");
        assert!(shown.starts_with("0 measurements") && !shown.contains("NaN"), "{shown}");
    }
}
