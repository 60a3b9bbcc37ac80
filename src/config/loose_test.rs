//! Every loose form: what is taken, and what is said of it.

use super::Config;
use super::config_test::{json, ok, refusal};

/// What a test looks at in a configuration.
type Taken = fn(&Config) -> String;

/// A form in the file, what is taken, and the whole warning.
type Row = (&'static str, Taken, &'static str, &'static str);

const FLUSH_SIZE: Taken = |config| config.data.flush_size.to_string();
const PASSWORD: Taken = |config| config.data.credentials.password.clone();
const DB_LIST: Taken = |config| config.data.db_list.join("|");
const TRACING: Taken = |config| config.data.write_tracing.to_string();
const BACKENDS: Taken = |config| {
    let names = config.data.topology.backends.iter().map(|backend| backend.name.clone());
    names.collect::<Vec<_>>().join("|")
};
const CIRCLES: Taken = |config| {
    let names = config.data.topology.circles.iter().map(|circle| circle.name.clone());
    names.collect::<Vec<_>>().join("|")
};

const ROWS: [Row; 22] = [
    (
        r#""flush_size": "10""#,
        FLUSH_SIZE,
        "10",
        "f.json:2: flush_size is text; it is taken as a whole number, as by influx-proxy 2.5",
    ),
    (
        r#""flush_size": """#,
        FLUSH_SIZE,
        "10000",
        "f.json:2: flush_size is text; it is taken as a whole number, as by influx-proxy 2.5",
    ),
    (
        r#""flush_size": 7.9"#,
        FLUSH_SIZE,
        "7",
        "f.json:2: flush_size is a number with a fraction or beyond 64 bits; it is taken as a whole number, as by \
         influx-proxy 2.5",
    ),
    (
        r#""flush_size": true"#,
        FLUSH_SIZE,
        "1",
        "f.json:2: flush_size is true or false; it is taken as a whole number, as by influx-proxy 2.5",
    ),
    (
        r#""write_tracing": "true""#,
        TRACING,
        "true",
        "f.json:2: write_tracing is text; it is taken as true or false, as by influx-proxy 2.5",
    ),
    (
        r#""write_tracing": "0""#,
        TRACING,
        "false",
        "f.json:2: write_tracing is text; it is taken as true or false, as by influx-proxy 2.5",
    ),
    (
        r#""write_tracing": 1"#,
        TRACING,
        "true",
        "f.json:2: write_tracing is a number; it is taken as true or false, as by influx-proxy 2.5",
    ),
    (
        r#""password": 123456"#,
        PASSWORD,
        "123456",
        "f.json:2: password is a number; it is taken as text, as by influx-proxy 2.5",
    ),
    (
        // JSON's numbers are floating-point numbers for influx-proxy.
        r#""password": 12345678901234567890"#,
        PASSWORD,
        "12345678901234567000",
        "f.json:2: password is one beyond 9223372036854775807; it is taken as text, as by influx-proxy 2.5",
    ),
    (
        r#""password": true"#,
        PASSWORD,
        "1",
        "f.json:2: password is true or false; it is taken as text, as by influx-proxy 2.5",
    ),
    (
        r#""db_list": "db1,db2""#,
        DB_LIST,
        "db1|db2",
        "f.json:2: db_list is text; it is split at its commas, as by influx-proxy 2.5, into 2",
    ),
    (
        r#""db_list": """#,
        DB_LIST,
        "",
        "f.json:2: db_list is text; it is split at its commas, as by influx-proxy 2.5, into 0",
    ),
    (
        "\"db_list\": [\"a\",\n5]",
        DB_LIST,
        "a|5",
        "f.json:3: db_list[1] is a number; it is taken as text, as by influx-proxy 2.5",
    ),
    (
        r#""db_list": ["", "a"]"#,
        DB_LIST,
        "|a",
        "f.json:2: db_list[0] is empty and allows no database; an empty list allows all",
    ),
    (
        r#""db_list": [null]"#,
        |config| format!("{:?}", config.data.db_list),
        r#"[""]"#,
        "f.json:2: db_list[0] is empty and allows no database; an empty list allows all",
    ),
    (
        r#""Flush_SIZE": 3"#,
        FLUSH_SIZE,
        "3",
        "f.json:2: Flush_SIZE is taken as flush_size: influx-proxy reads keys in any case",
    ),
    (
        "\"flush_size\": 3,\n\"flush_size\": 4",
        FLUSH_SIZE,
        "4",
        "f.json:2: flush_size is there twice; the last one counts, as for influx-proxy",
    ),
    (
        r#""tls": []"#,
        |config| config.https.ciphers.join(""),
        "",
        "f.json:2: tls is a list; it is taken as a table of keys, as by influx-proxy 2.5",
    ),
    (
        r#""circles": {"name": "one", "backends": [{"name": "x", "url": "http://h"}]}"#,
        CIRCLES,
        "one",
        "f.json:2: circles is no list; it is taken as a list of one, as by influx-proxy 2.5",
    ),
    (
        "\"circles\": [{\"name\": \"one\",\n\"backends\": {\"name\": \"x\", \"url\": \"http://h\"}}]",
        BACKENDS,
        "x",
        "f.json:3: circles[0].backends is no list; it is taken as a list of one, as by influx-proxy 2.5",
    ),
    (
        r#""circles": [{"backends": [{"name": "x", "url": "http://h"}]}]"#,
        CIRCLES,
        "",
        "f.json:2: circles[0] has no name, by which /health and the log could call it",
    ),
    (
        r#""circles": [{"name": "c", "backends": [{"name": 5, "url": "http://h"}]}]"#,
        BACKENDS,
        "5",
        "f.json:2: circles[0].backends[0].name is a number; it is taken as text, as by influx-proxy 2.5",
    ),
];

#[test]
fn each_loose_form_is_taken_and_warned_of() {
    for (keys, taken, want, warning) in ROWS {
        // A second key of that name would be one loose form more.
        let text = match keys.contains("circles") {
            true => format!("{{\n{keys}\n}}"),
            false => json(keys),
        };
        let config = ok("f.json", &text);
        assert_eq!(taken(&config), want, "{keys}");
        let warnings: Vec<_> = config.warnings.iter().filter(|warning| !warning.contains("listen_addr")).collect();
        assert_eq!(warnings, [warning], "{keys}");
    }
}

#[test]
fn a_file_that_is_as_it_should_be_has_no_warning() {
    let keys = r#""listen_addr": "127.0.0.1:1", "flush_size": 3, "db_list": ["a"], "influx_proxy": 2.5"#;
    let config = ok("f.json", &json(keys));
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn yaml_and_toml_have_loose_forms_too() {
    let yaml = "circles:\n  - name: c\n    backends:\n      - name: b\n        url: http://h\nusername: admin\n\
                password: 123456\nflush_size: '10'\nwrite_tracing: \"1\"\ndb_list: a,b\nidle_timeout: 7.0\n";
    let config = ok("f.yaml", yaml);
    assert_eq!((PASSWORD(&config), FLUSH_SIZE(&config)), ("123456".to_owned(), "10".to_owned()));
    assert_eq!((DB_LIST(&config), config.data.idle_timeout.as_secs()), ("a|b".to_owned(), 7));
    assert!(config.data.write_tracing);
    let lines = [7, 8, 9, 10, 11].map(|line| format!("f.yaml:{line}: "));
    assert!(lines.iter().all(|line| config.warnings.iter().any(|w| w.starts_with(line))), "{:?}", config.warnings);

    let toml =
        "Password = 123456\nflush_size = '10'\n[[circles]]\n[[circles.backends]]\nname = 'b'\nurl = 'http://h'\n";
    let config = ok("f.toml", toml);
    assert_eq!((PASSWORD(&config), FLUSH_SIZE(&config), CIRCLES(&config)), ("123456".into(), "10".into(), "".into()));
    let large = ok("f.yaml", &yaml.replace("123456", "12345678901234567890"));
    assert_eq!(PASSWORD(&large), "12345678901234567890", "YAML has whole numbers");
}

#[test]
fn two_values_of_one_key_in_two_cases_are_refused() {
    let twice = |value: &str| json(&format!(r#""flush_size": 3, "FLUSH_SIZE": {value}"#));
    assert_eq!(FLUSH_SIZE(&ok("f.json", &twice("3"))), "3");
    let sentence = "f.json:2: flush_size is there twice, in upper and lower case, with two values; remove one";
    assert_eq!(refusal("f.json", &twice("4")), sentence);
}

#[test]
fn no_warning_repeats_a_password() {
    let config = ok("f.json", &json(r#""username": "u", "PASSWORD": 4711471147, "password": 4711471147"#));
    assert_eq!(PASSWORD(&config), "4711471147");
    assert!(config.warnings.iter().all(|warning| !warning.contains("4711471147")), "{:?}", config.warnings);
}
