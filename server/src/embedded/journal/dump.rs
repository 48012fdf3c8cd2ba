//! All rows as records: what a base and a backup are.

use std::io;

use pcmcache_shared::{ActionKey, Digest, Scope, UnitKey};
use redb::{ReadTransaction, ReadableTable as _};

use super::Record;
use crate::embedded::index::corrupted;
use crate::embedded::profiles;
use crate::embedded::tables::{META, RESULTS, SET_RESULTS, SETS, SPENT, UPLOADS, decode, names};
use crate::embedded::uses::{KEPT, USED};

/// Writes all rows of one moment but the leases, which live in minutes, and what follows from the others. Results come before
/// what names them.
pub(in crate::embedded) fn dump(rows: &ReadTransaction, to: &mut dyn io::Write) -> Result<(), redb::Error> {
    let mut write = |record: Record| record.write(to).map_err(redb::Error::Io);
    for row in rows.open_table(META)?.iter()? {
        let (name, value) = row?;
        write(Record::Number { name: name.value().to_owned(), value: value.value() })?;
    }
    for row in rows.open_table(RESULTS)?.iter()? {
        let (key, row) = row?;
        let (scope, action) = (scope(key.value().0)?, ActionKey::from_bytes(*key.value().1));
        write(Record::Result { scope, action, stored: Box::new(decode(row.value())?) })?;
    }
    for row in rows.open_table(SET_RESULTS)?.iter()? {
        let (key, row) = row?;
        let (name, unit, set) = key.value();
        let (scope, unit, set) = (scope(name)?, UnitKey::from_bytes(*unit), Digest::from_bytes(*set));
        let actions = names(row.value()).into_iter().map(ActionKey::from_bytes).collect();
        write(Record::Under { scope, unit, set, actions })?;
    }
    for row in rows.open_table(SETS)?.iter()? {
        let (key, row) = row?;
        let (scope, unit) = (scope(key.value().0)?, UnitKey::from_bytes(*key.value().1));
        let sets = names(row.value()).into_iter().map(Digest::from_bytes).collect();
        write(Record::Sets { scope, unit, sets })?;
    }
    for row in rows.open_table(UPLOADS)?.iter()? {
        let (key, size) = row?;
        let (digest, name, writer) = key.value();
        let writer = writer.parse().map_err(|_| corrupted("a blob put by nobody"))?;
        let (digest, scope) = (Digest::from_bytes(*digest), scope(name)?);
        write(Record::Upload { digest, scope, writer, size: size.value() })?;
    }
    for row in rows.open_table(USED)?.iter()? {
        let (key, row) = row?;
        let (scope, action) = (scope(key.value().0)?, ActionKey::from_bytes(*key.value().1));
        write(Record::Used { scope, action, at_s: row.value().0 })?;
    }
    for row in rows.open_table(KEPT)?.iter()? {
        let key = row?.0;
        let (scope, action) = (scope(key.value().0)?, ActionKey::from_bytes(*key.value().1));
        write(Record::Kept { scope, action })?;
    }
    for row in rows.open_table(SPENT)?.iter()? {
        let key = row?.0;
        let (until_s, name) = key.value();
        write(Record::Spent { name: Digest::from_bytes(*name), until_s })?;
    }
    profiles::dump(rows, write)
}

fn scope(name: &str) -> Result<Scope, redb::Error> {
    name.parse().map_err(|_| corrupted("a row of no scope"))
}
