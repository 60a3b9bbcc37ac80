//! Cache files as influx-proxy leaves them, whole and damaged: what is read, and that no whole block is lost.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::cache_blocks::Piece;
use super::cache_files::{CacheFile, find};
use crate::limits::CACHE_PIECE_BYTES_MAX;

fn block(names: &str, lines: &str) -> Vec<u8> {
    let mut bytes = format!("{names} ").into_bytes();
    let mut gzip = GzEncoder::new(&mut bytes, Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    gzip.finish().unwrap();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// Lines of one block, some hundred bytes of it also when they are compressed.
fn lines(first: u64) -> String {
    (first..first + 20).map(|n| format!("m,host=h{} v={n}i {n}\n", n * n * 7919)).collect()
}

/// What is read of a file with these bytes, and how many bytes are damaged.
fn read(bytes: &[u8], record: Option<&[u8]>) -> (Vec<Piece>, u64) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("b.dat"), bytes).unwrap();
    if let Some(record) = record {
        std::fs::write(dir.path().join("b.rec"), record).unwrap();
    }
    let file = only(dir.path());
    let mut blocks = file.blocks().unwrap();
    let pieces = std::iter::from_fn(|| blocks.next_piece().unwrap()).collect();
    (pieces, blocks.damaged_bytes)
}

fn only(dir: &Path) -> CacheFile {
    let mut files = find(dir);
    assert_eq!(files.len(), 1);
    files.remove(0)
}

/// The first number of each block that was read.
fn firsts(pieces: &[Piece]) -> Vec<u64> {
    let first = |piece: &Piece| {
        let text = std::str::from_utf8(&piece.lines).unwrap();
        text.lines().next()?.rsplit(' ').next()?.parse().ok()
    };
    pieces.iter().filter_map(first).collect()
}

#[test]
fn both_generations_are_read_from_where_influx_proxy_had_come() {
    let delivered = block("old", "gone v=1 1\n");
    let bytes =
        [delivered.clone(), block("a+b%2Fc", "m v=1 1\n"), block("db rp%201", "m v=2 2\n"), block("db ", "m v=3 3\n")];
    let (pieces, damaged) = read(&bytes.concat(), Some(&(delivered.len() as u64).to_be_bytes()));
    let want = [("a b/c", "", "m v=1 1\n"), ("db", "rp 1", "m v=2 2\n"), ("db", "", "m v=3 3\n")];
    let want = want.map(|(db, rp, lines)| Piece { db: db.into(), rp: rp.into(), lines: lines.into() });
    assert_eq!((pieces, damaged), (want.into(), 0));
}

#[test]
fn a_torn_block_loses_itself_and_no_other_wherever_it_is_cut() {
    let whole = [0, 1000, 2000].map(|first| block("db rp", &lines(first)));
    let [first, torn, last] = &whole;
    for cut in 1..torn.len() {
        let (pieces, damaged) = read(&[first, &torn[..cut], last].concat(), None);
        // What lacks only the zeros at its end is whole with those of the next length.
        let is_whole = torn[cut..].iter().all(|&byte| byte == 0);
        let want = if is_whole { (vec![0, 1000, 2000], 0) } else { (vec![0, 2000], cut as u64) };
        assert_eq!((firsts(&pieces), damaged), want, "in the middle, cut at {cut}");
        let (pieces, damaged) = read(&[first, last, &torn[..cut]].concat(), None);
        assert_eq!((firsts(&pieces), damaged), (vec![0, 2000], cut as u64), "at the end, cut at {cut}");
        let (pieces, _) = read(&[&torn[..cut], first, last].concat(), None);
        assert!(firsts(&pieces).ends_with(&[0, 2000]), "at the beginning, cut at {cut}");
    }
}

#[test]
fn a_byte_that_has_changed_costs_its_own_block() {
    let whole = [0, 1000, 2000].map(|first| block("db", &lines(first)));
    let file = whole.concat();
    let middle = whole[0].len()..whole[0].len() + whole[1].len();
    for at in middle {
        let mut bytes = file.clone();
        bytes[at] ^= 0x55;
        let (pieces, _) = read(&bytes, None);
        let firsts = firsts(&pieces);
        // In the fields of gzip's head that nothing depends on, a change costs nothing.
        assert!(firsts == [0, 2000] || firsts == [0, 1000, 2000], "{at}: {firsts:?}");
    }
}

#[test]
fn zeros_and_lengths_that_lead_nowhere_are_no_blocks() {
    let whole = block("db", &lines(0));
    for (damage, name) in [
        (vec![0; 1 << 20], "zeros, as after a power cut"),
        (vec![0; 3], "fewer than a length"),
        (vec![0xff; 4096], "a length beyond the end"),
        (b"db \x1f\x8b\x08".repeat(1000), "what begins like a block, again and again"),
    ] {
        let (pieces, damaged) = read(&[&whole[..], &damage].concat(), None);
        assert_eq!((firsts(&pieces), damaged), (vec![0], damage.len() as u64), "{name}, at the end");
        let (pieces, damaged) = read(&[&damage[..], &whole].concat(), None);
        assert_eq!((firsts(&pieces), damaged), (vec![0], damage.len() as u64), "{name}, at the beginning");
        let (pieces, damaged) = read(&damage, None);
        assert_eq!((firsts(&pieces), damaged), (vec![], damage.len() as u64), "{name}, alone");
    }
}

#[test]
fn an_offset_that_leads_to_no_block_skips_nothing() {
    let (one, two) = (block("db", &lines(0)), block("db", &lines(1000)));
    let file = [one.clone(), two.clone()].concat();
    let offset = |offset: usize| (offset as u64).to_be_bytes().to_vec();
    for (record, want, name) in [
        (offset(0), vec![0, 1000], "the beginning"),
        (offset(one.len()), vec![1000], "a border"),
        (offset(file.len()), vec![], "the end"),
        (offset(file.len() + 1), vec![0, 1000], "beyond the end"),
        (offset(usize::MAX), vec![0, 1000], "far beyond it"),
        (offset(one.len() - 1), vec![0, 1000], "within a block"),
        (vec![], vec![0, 1000], "an empty record"),
        (vec![0, 0, 0, 9], vec![0, 1000], "a torn record"),
    ] {
        assert_eq!(firsts(&read(&file, Some(&record)).0), want, "{name}");
    }
    // The block that it leads to is torn: those before it have been delivered.
    let torn = [&one[..], &two[..two.len() / 2], &block("db", &lines(2000))].concat();
    assert_eq!(firsts(&read(&torn, Some(&offset(one.len()))).0), [2000]);
    // A torn one before it hides the border, but a whole block begins there.
    let torn = [&one[..one.len() / 2], &two, &block("db", &lines(2000))].concat();
    assert_eq!(firsts(&read(&torn, Some(&offset(one.len() / 2 + two.len()))).0), [2000]);
}

#[test]
fn a_block_larger_than_memory_is_taken_in_pieces_of_whole_lines() {
    let line = format!("m v=\"{}\" 1\n", "x".repeat(1000));
    let count = 9 * CACHE_PIECE_BYTES_MAX / 4 / line.len();
    let whole = block("db", &line.repeat(count));
    let (pieces, damaged) = read(&[&whole[..], &block("db", "m v=1 7\n")].concat(), None);
    assert!(pieces.len() == 4 && pieces.iter().all(|piece| piece.lines.len() <= CACHE_PIECE_BYTES_MAX));
    assert!(pieces.iter().all(|piece| piece.lines.ends_with(b"\n")));
    let bytes: usize = pieces.iter().map(|piece| piece.lines.len()).sum();
    assert_eq!((bytes, damaged), (count * line.len() + 8, 0));
    // Its checksum is at the end: none of it is taken when that is wrong.
    let torn = [&whole[..whole.len() - 8], &block("db", "m v=1 7\n")].concat();
    assert_eq!(firsts(&read(&torn, None).0), [7]);
}

#[test]
fn an_earlier_import_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (number, records) in [("1", true), ("2", false), ("3", true)] {
        std::fs::write(path("b.dat"), number).unwrap();
        if records {
            std::fs::write(path("b.rec"), number).unwrap();
        }
        only(dir.path()).put_aside().unwrap();
    }
    let held = |name: &str| std::fs::read_to_string(path(name)).ok();
    let names = ["b.dat.imported", "b.dat.imported.2", "b.dat.imported.3", "b.rec.imported", "b.rec.imported.3"];
    assert_eq!(names.map(held), ["1", "2", "3", "1", "3"].map(|text| Some(text.to_owned())));
    assert_eq!(held("b.rec.imported.2"), None);
    assert_eq!(find(dir.path()), []);
}

#[test]
fn a_file_that_another_process_writes_to_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.dat");
    std::fs::write(&path, "x").unwrap();
    let file = only(dir.path());
    let held = |open: &str| {
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(format!("exec {open}'{}'; echo; read end", path.display()));
        shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = shell.spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let writer = file.writer();
        drop(child.stdin.take());
        let pid = child.id();
        child.wait().unwrap();
        writer.map(|writer| (writer.pid == pid, writer.name))
    };
    assert_eq!(held("3>>"), Some((true, "sh".to_owned())));
    assert_eq!(held("3<"), None, "it is only read");
    assert_eq!(file.writer(), None);
}
