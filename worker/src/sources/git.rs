//! x
use crate::error::WorkerError;
use crate::snapshot::Snapshot;
use crate::sources::Sources;
use kiln_graph::GitSource;
use kiln_solver::Task;
impl Sources {
    pub(crate) async fn git(&self, _s: &GitSource, _t: &Task) -> Result<Snapshot, WorkerError> {
        Ok(Snapshot::default())
    }
}
