//! One cluster for all tests of a binary.

use anyhow::Result;
use tokio::sync::OnceCell;

use super::LocalCluster;
use crate::kwok::NodeSpec;

static SHARED: OnceCell<LocalCluster> = OnceCell::const_new();

impl LocalCluster {
    /// The cluster that the tests of this binary share, with KWOK and
    /// [`NodeSpec::default`] nodes; started by the first caller. Use a namespace per
    /// test, and own nodes where capacity matters. A `static` is never dropped: the
    /// kernel and the [guardian](crate::guardian) end it with the process.
    ///
    /// # Errors
    /// It does not start; the next caller tries again.
    pub async fn shared() -> Result<&'static Self> {
        SHARED.get_or_try_init(|| Self::builder().kwok(NodeSpec::default()).start()).await
    }
}
