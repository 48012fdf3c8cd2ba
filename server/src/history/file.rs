//! The file: `history.redb` beside the index, for it has other worth and another pace.

use std::collections::BTreeMap;
use std::path::Path;

use pcmcache_shared::disk;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::de::DeserializeOwned;

use super::series::{Bucket, Changes, Series};
use crate::fault::Fault;
use crate::redb_file::{self, Doubt};
use crate::seen::KeptModules;

pub(super) const NAME: &str = "history.redb";
const MINUTES: TableDefinition<u64, &[u8]> = TableDefinition::new("minutes");
const HOURS: TableDefinition<u64, &[u8]> = TableDefinition::new("hours");
/// One row: what is known of modules.
const MODULES: TableDefinition<(), &[u8]> = TableDefinition::new("modules");

/// It is small, and read once.
const CACHE_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct File(Database);

/// What was in it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) series: Series,
    pub(super) modules: Option<KeptModules>,
}

impl File {
    /// Opens the file, or makes it; one that cannot be read is moved aside. `None`: there is no way to have one.
    pub(super) fn open(directory: &Path) -> Option<(Self, Kept)> {
        let path = directory.join(NAME);
        let error = match open(&path) {
            Ok(opened) => return Some(opened),
            Err(redb::Error::DatabaseAlreadyOpen) => {
                tracing::warn!(file = %path.display(), "someone has the dashboard's history open; it will not be kept");
                return None;
            }
            Err(error) => error,
        };
        let aside = path.with_extension("redb.damaged");
        tracing::warn!(file = %path.display(), %error, aside = %aside.display(), "the dashboard's history cannot be read; it begins anew");
        let opened = disk::rename(&path, &aside).map_err(redb::Error::Io).and_then(|()| open(&path));
        opened.inspect_err(|error| tracing::warn!(%error, "the dashboard's history will not be kept")).ok()
    }

    /// Writes in one transaction. Blocks.
    pub(super) fn write(&self, changes: &Changes, modules: Option<&KeptModules>) -> Result<(), Fault> {
        self.try_write(changes, modules).map_err(|error| Fault::Broken {
            operation: "write the history",
            source: error.to_string().into(),
        })
    }

    fn try_write(&self, changes: &Changes, modules: Option<&KeptModules>) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        for (table, rows) in [(MINUTES, &changes.minutes), (HOURS, &changes.hours)] {
            let mut table = transaction.open_table(table)?;
            for (number, bucket) in rows {
                match bucket {
                    Some(bucket) => drop(table.insert(number, encode(bucket)?.as_slice())?),
                    None => drop(table.remove(number)?),
                }
            }
        }
        if let Some(modules) = modules {
            transaction.open_table(MODULES)?.insert((), encode(modules)?.as_slice())?;
        }
        Ok(transaction.commit()?)
    }
}

fn open(path: &Path) -> Result<(File, Kept), redb::Error> {
    let database = redb_file::open(path, CACHE_BYTES, &Doubt::default())?;
    let transaction = database.begin_read()?;
    let rows = |table| -> Result<BTreeMap<u64, Bucket>, redb::Error> {
        let table = match transaction.open_table(table) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        };
        table
            .iter()?
            .map(|row| row.map_err(redb::Error::from))
            .map(|row| {
                let (number, bucket) = row?;
                Ok((number.value(), decode(bucket.value())?))
            })
            .collect()
    };
    let series = Series::of(rows(MINUTES)?, rows(HOURS)?);
    let modules = match transaction.open_table(MODULES) {
        Ok(table) => table.get(())?.map(|row| decode(row.value())).transpose()?,
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    drop(transaction);
    Ok((File(database), Kept { series, modules }))
}

fn encode(row: &impl serde::Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(row).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(bytes).map_err(|error| redb::Error::Corrupted(error.to_string()))
}
