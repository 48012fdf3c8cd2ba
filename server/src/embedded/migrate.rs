//! A store of an older format becomes one of this: in one transaction, so that a kill leaves the old or the new.
//!
//! Format 1 knew no writers: who had put a blob, or published a result, was nobody's business. What it holds is taken over as
//! the work of [`Writer::before_tokens`], published now.

use pcmcache_shared::{ActionResult, Digest, UnitKey, Writer};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::Deserialize;

use super::FORMAT;
use super::tables::{META, REFERENCES, RESULTS, UPLOADS, decode, encode};
use crate::results::StoredResult;

type Name = &'static [u8; 32];

/// Format 1: (digest, scope, action key).
const REFERENCES_1: TableDefinition<(Name, &str, Name), ()> = TableDefinition::new("references");
/// Format 1: (digest, scope) -> size in bytes.
const VISIBLE_1: TableDefinition<(Name, &str), u64> = TableDefinition::new("visible");
/// Rows of an older format, while they are read.
const OLD_RESULTS: TableDefinition<(&str, Name), &[u8]> = TableDefinition::new("results-1");
const OLD_REFERENCES: TableDefinition<(Name, &str, Name), ()> = TableDefinition::new("references-1");

/// A result of format 1.
#[derive(Deserialize)]
struct Result1 {
    result: ActionResult,
    unit: UnitKey,
    set: Digest,
}

/// Takes format 1 over. The rows that it does not touch mean the same in both.
pub(super) fn from_1(transaction: &WriteTransaction, now_s: u64) -> Result<(), redb::Error> {
    let writer = Writer::before_tokens();
    results(transaction, &writer, now_s)?;
    references(transaction, &writer)?;
    uploads(transaction, &writer)?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    Ok(())
}

fn results(transaction: &WriteTransaction, writer: &Writer, now_s: u64) -> Result<(), redb::Error> {
    transaction.rename_table(RESULTS, OLD_RESULTS)?;
    {
        let (old, mut new) = (transaction.open_table(OLD_RESULTS)?, transaction.open_table(RESULTS)?);
        for row in old.iter()? {
            let (key, row) = row?;
            let Result1 { result, unit, set } = decode(row.value())?;
            let writers = vec![writer.clone()];
            let stored = StoredResult { result, unit, set, writers, published_s: now_s };
            new.insert(key.value(), encode(&stored)?.as_slice())?;
        }
    }
    transaction.delete_table(OLD_RESULTS)?;
    Ok(())
}

fn references(transaction: &WriteTransaction, writer: &Writer) -> Result<(), redb::Error> {
    transaction.rename_table(REFERENCES_1, OLD_REFERENCES)?;
    {
        let old = transaction.open_table(OLD_REFERENCES)?;
        let mut new = transaction.open_table(REFERENCES)?;
        for row in old.iter()? {
            new.insert(row?.0.value(), writer.as_str())?;
        }
    }
    transaction.delete_table(OLD_REFERENCES)?;
    Ok(())
}

fn uploads(transaction: &WriteTransaction, writer: &Writer) -> Result<(), redb::Error> {
    {
        let (old, mut new) = (transaction.open_table(VISIBLE_1)?, transaction.open_table(UPLOADS)?);
        for row in old.iter()? {
            let (key, size) = row?;
            let (digest, scope) = key.value();
            new.insert((digest, scope, writer.as_str()), size.value())?;
        }
    }
    transaction.delete_table(VISIBLE_1)?;
    Ok(())
}
