//! What couriers say of their backends while things break: queries avoid a backend whose points wait.

use std::rc::Rc;
use std::time::Duration;

use fluxgate_machine::exec;

use crate::check;
use crate::proxy::Process;
use crate::setup::Full;
use crate::world::{Fate, Trouble, World, Write};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(5);
/// A point that waits for so long is said to wait.
const SAID_WITHIN: Duration = Duration::from_secs(5);

/// Looks as long as the run lasts.
pub async fn watch(world: Rc<World>, process: Rc<Process>) {
    // What is dropped, or may be gone with a log that has failed, does not wait.
    if world.log_may_fail || world.setup.full == Full::DropOldest {
        return;
    }
    loop {
        exec::sleep(INTERVAL).await;
        let now = exec::now();
        let troubles = |t: &Trouble| t.backend.is_none() && t.from <= now && now < t.until;
        // On a slow disk a record of one log waits for another log; a worker that has lost its CPU says nothing.
        let Some(life) = process.life().filter(|_| !world.troubles.borrow().iter().any(troubles)) else { continue };
        let writes = world.writes.borrow();
        for backend in 0..life.stats.couriers.len() {
            let waits = |(number, write): &(usize, &Write)| {
                let is_said = || life.says_behind(backend, write.place.db);
                write.begin > life.began && !is_said() && is_behind(&world, backend, *number, write)
            };
            if let Some((number, _)) = writes.iter().enumerate().find(waits) {
                let text =
                    format!("b{backend} lacks write {number}, and its courier says that nothing of its database waits");
                world.broken(check::SAYS, text);
                return;
            }
        }
    }
}

/// The point was acknowledged a while ago, and nothing has become of it there.
fn is_behind(world: &World, backend: usize, number: usize, write: &Write) -> bool {
    if write.fate != Fate::Acked
        || write.end + SAID_WITHIN > exec::now()
        || !world.owners(write.place).contains(&backend)
    {
        return false;
    }
    let influx = &world.backends[backend].borrow().influx;
    let is_refused = || world.backends.iter().any(|server| server.borrow().influx.refused.contains_key(&number));
    !influx.applied.has(number) && !influx.homeless.contains(&number) && !is_refused()
}
