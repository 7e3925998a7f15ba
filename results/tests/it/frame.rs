//! Rows survive Parquet and CSV; a damaged file says what is wrong with it.

use std::fs;

use results::frame::{count_rows, export_csv, read_facts, read_observations, write_facts, write_observations};
use results::observation::{Direction, Fact, Observation, Status};
use results::run::StoreError;

use crate::row;

fn odd_rows() -> Vec<Observation> {
    let mut rows = vec![
        row("plain", "tpot_ms", 0, 0, 1.0 / 3.0),
        Observation {
            reason: "quote \" comma , line\nbreak ü 🦀".to_owned(), ..row("odd, \"cell\"", "x", 1, 2, -0.0)
        },
        Observation {
            value: None,
            status: Status::Skipped,
            direction: Direction::None,
            ..row("skipped", "x", 0, 0, 0.0)
        },
        Observation {
            x: Some(f64::MIN_POSITIVE),
            seed: u64::MAX,
            item: u32::MAX,
            ..row("extreme", "x", 0, 0, f64::MAX)
        },
        Observation {
            x: Some(5e-324),
            direction: Direction::Higher,
            status: Status::Ok,
            ..row("tiny", "x", 0, 0, 1e-300)
        },
    ];
    rows.push(Observation { value: None, status: Status::Failed, ..rows[0].clone() });
    rows.push(Observation { value: None, status: Status::Wrong, ..rows[0].clone() });
    rows
}

#[test]
fn parquet_round_trip() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("observations.parquet");
    for rows in [odd_rows(), Vec::new()] {
        write_observations(&path, &rows).expect("write");
        assert_eq!(read_observations(&path).expect("read"), rows);
        assert_eq!(count_rows(&path).expect("footer"), rows.len());
    }
    let facts = vec![Fact {
        run_id: "r".to_owned(),
        scope: "machine".to_owned(),
        key: "cpu_model".to_owned(),
        value: "ünusual\n".to_owned(),
    }];
    let path = folder.path().join("provenance.parquet");
    write_facts(&path, &facts).expect("write");
    assert_eq!(read_facts(&path).expect("read"), facts);
    // no part file is left beside them
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 2);
}

#[test]
fn csv_has_the_columns_of_the_parquet_file() {
    let mut bytes = Vec::new();
    let rows = odd_rows();
    export_csv(&rows, &mut bytes).expect("write");
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let header = reader.headers().expect("header").clone();
    let frame = results::frame::observations_frame(&rows).expect("frame");
    assert_eq!(
        header.iter().collect::<Vec<_>>(),
        frame.get_column_names().iter().map(|name| name.as_str()).collect::<Vec<_>>()
    );
    let place = |name: &str| header.iter().position(|column| column == name).expect("column");
    let records: Vec<_> = reader.records().map(|record| record.expect("record")).collect();
    assert_eq!(records.len(), rows.len());
    for (record, row) in records.iter().zip(&rows) {
        assert_eq!(record[place("value")].parse::<f64>().ok(), row.value);
        assert_eq!(record[place("x")].parse::<f64>().ok(), row.x);
        assert_eq!(record[place("reason")], row.reason);
        assert_eq!(record[place("seed")].parse(), Ok(row.seed));
        assert_eq!(record[place("schema_version")], *"1");
    }
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("observations.parquet");
    let error = read_observations(&path).expect_err("absent").to_string();
    assert!(error.contains("observations.parquet") && error.contains("cannot read"), "{error}");

    write_observations(&path, &odd_rows()).expect("write");
    let whole = fs::read(&path).expect("bytes");
    for keep in [0, 3, 12, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..keep]).expect("truncate");
        let error = read_observations(&path).expect_err("truncated");
        assert!(matches!(error, StoreError::Unreadable { .. }), "{keep}: {error}");
        assert!(count_rows(&path).is_err());
    }
}

#[test]
fn a_missing_or_mistyped_column_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("provenance.parquet");
    write_observations(&path, &odd_rows()).expect("write");
    let error = read_facts(&path).expect_err("another table").to_string();
    assert!(
        error.contains("provenance.parquet column `scope`: expected") && error.contains("no such column"),
        "{error}"
    );
    write_facts(&path, &[]).expect("write");
    let error = read_observations(&path).expect_err("another table").to_string();
    assert!(error.contains("column `scenario`"), "{error}");
}
