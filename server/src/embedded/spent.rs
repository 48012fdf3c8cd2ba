//! Exchanged tokens as rows, in the order of their ends, so that what can be forgotten is at the front.

use async_trait::async_trait;
use pcmcache_shared::Digest;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::Embedded;
use super::tables::SPENT;
use crate::fault::Fault;
use crate::trust::{MAX_SPENT, Spent};

#[async_trait]
impl Spent for Embedded {
    async fn spend(&self, name: Digest, until_s: u64, now_s: u64) -> Result<bool, Fault> {
        const OPERATION: &str = "remember a token";
        let spend = move |transaction: &WriteTransaction| {
            let mut spent = transaction.open_table(SPENT)?;
            spent.retain_in(..(now_s, &[0; 32]), |_, _| false)?;
            let key = (until_s, name.as_bytes());
            if spent.get(key)?.is_some() {
                return Ok(Some(false));
            }
            if spent.len()? >= MAX_SPENT {
                return Ok(None);
            }
            spent.insert(key, ())?;
            Ok(Some(true))
        };
        self.writer.write(OPERATION, spend).await?.ok_or(Fault::Unavailable { operation: OPERATION })
    }
}
