//! Parses statements that the proxy does not support: users, continuous queries, subscriptions, kills. Only their
//! printed text is kept, without passwords.

use super::{ErrorKind, Parser, Result, error, expected};
use crate::influxql::ast::{Expr, Select, Statement, Unsupported};
use crate::influxql::lex::{Kind, Word};
use crate::influxql::print::{name, string};
use crate::influxql::{duration, visit};

const REDACTED: &str = "[REDACTED]";

impl Parser<'_> {
    pub(super) fn create_user(&mut self) -> Result<Statement> {
        let user = self.name()?;
        self.expect_key(Word::With, "WITH")?;
        self.expect_key(Word::Password, "PASSWORD")?;
        self.string()?;
        let mut text = format!("CREATE USER {} WITH PASSWORD {REDACTED}", name(&user));
        if self.accept_key(Word::With) {
            self.expect_key(Word::All, "ALL")?;
            self.expect_key(Word::Privileges, "PRIVILEGES")?;
            text += " WITH ALL PRIVILEGES";
        }
        Ok(unsupported(Unsupported::CreateUser, text))
    }

    pub(super) fn drop_user(&mut self) -> Result<Statement> {
        let text = format!("DROP USER {}", name(&self.name()?));
        Ok(unsupported(Unsupported::DropUser, text))
    }

    /// What follows SET.
    pub(super) fn set_password(&mut self) -> Result<Statement> {
        self.expect_key(Word::Password, "PASSWORD")?;
        self.expect_key(Word::For, "FOR")?;
        let user = self.name()?;
        self.expect(Kind::Op(crate::influxql::ast::Op::Eq), "=")?;
        self.string()?;
        Ok(unsupported(Unsupported::SetPassword, format!("SET PASSWORD FOR {} = {REDACTED}", name(&user))))
    }

    /// What follows GRANT.
    pub(super) fn grant(&mut self) -> Result<Statement> {
        let text = self.privilege("GRANT", Word::To)?;
        Ok(unsupported(Unsupported::Grant, text))
    }

    /// What follows REVOKE.
    pub(super) fn revoke(&mut self) -> Result<Statement> {
        let text = self.privilege("REVOKE", Word::From)?;
        Ok(unsupported(Unsupported::Revoke, text))
    }

    /// `READ ON db TO user`, or `ALL TO user` for the whole server. `side` is TO or FROM.
    fn privilege(&mut self, verb: &str, side: Word) -> Result<String> {
        let side_text = if side == Word::To { "TO" } else { "FROM" };
        let token = self.next();
        let privilege = match token.kind {
            Kind::Key(Word::Read) => "READ",
            Kind::Key(Word::Write) => "WRITE",
            Kind::Key(Word::All) => {
                self.accept_key(Word::Privileges);
                "ALL PRIVILEGES"
            }
            _ => return Err(expected(&token, "READ, WRITE, ALL [PRIVILEGES]")),
        };
        let mut text = format!("{verb} {privilege}");
        if self.accept_key(Word::On) {
            text += &format!(" ON {}", name(&self.name()?));
        } else if privilege != "ALL PRIVILEGES" {
            return Err(expected(&self.next(), "ON"));
        }
        self.expect_key(side, side_text)?;
        Ok(format!("{text} {side_text} {}", name(&self.name()?)))
    }

    /// What follows CREATE CONTINUOUS.
    pub(super) fn create_continuous_query(&mut self) -> Result<Statement> {
        self.expect_key(Word::Query, "QUERY")?;
        let query = self.name()?;
        self.expect_key(Word::On, "ON")?;
        let mut text = format!("CREATE CONTINUOUS QUERY {} ON {}", name(&query), name(&self.name()?));
        let (mut every, mut reach) = (0, 0);
        if self.accept_key(Word::Resample) {
            text += " RESAMPLE";
            if self.accept_key(Word::Every) {
                every = self.duration()?;
                text += &format!(" EVERY {}", duration::Text(every));
            }
            if self.accept_key(Word::For) {
                reach = self.duration()?;
                text += &format!(" FOR {}", duration::Text(reach));
            }
            if every == 0 && reach == 0 {
                return Err(expected(&self.next(), "EVERY, FOR"));
            }
        }
        self.expect_key(Word::Begin, "BEGIN")?;
        self.expect_key(Word::Select, "SELECT")?;
        let at = self.lexer.at();
        let select = self.select(true)?;
        let interval = interval(&select);
        if aggregates(&select) && !matches!(interval, Ok(1..)) {
            return Err(error(at, ErrorKind::Refused("expected GROUP BY time(...)")));
        }
        self.expect_key(Word::End, "END")?;
        if reach != 0 && interval.is_ok_and(|interval| interval.max(every) > reach) {
            return Err(error(at, ErrorKind::Refused("FOR duration must be >= GROUP BY time duration")));
        }
        text += &format!(" BEGIN {select} END");
        Ok(unsupported(Unsupported::CreateContinuousQuery, text))
    }

    /// What follows DROP CONTINUOUS.
    pub(super) fn drop_continuous_query(&mut self) -> Result<Statement> {
        self.expect_key(Word::Query, "QUERY")?;
        let query = self.name()?;
        self.expect_key(Word::On, "ON")?;
        let text = format!("DROP CONTINUOUS QUERY {} ON {}", name(&query), name(&self.name()?));
        Ok(unsupported(Unsupported::DropContinuousQuery, text))
    }

    pub(super) fn create_subscription(&mut self) -> Result<Statement> {
        let mut text = format!("CREATE SUBSCRIPTION {}", self.subscription()?);
        self.expect_key(Word::Destinations, "DESTINATIONS")?;
        let token = self.next();
        text += match token.kind {
            Kind::Key(Word::All) => " DESTINATIONS ALL ",
            Kind::Key(Word::Any) => " DESTINATIONS ANY ",
            _ => return Err(expected(&token, "ALL, ANY")),
        };
        text += &string(&self.string()?);
        while self.accept(Kind::Comma) {
            text += &format!(", {}", string(&self.string()?));
        }
        Ok(unsupported(Unsupported::CreateSubscription, text))
    }

    pub(super) fn drop_subscription(&mut self) -> Result<Statement> {
        let text = format!("DROP SUBSCRIPTION {}", self.subscription()?);
        Ok(unsupported(Unsupported::DropSubscription, text))
    }

    /// `name ON db.rp`.
    fn subscription(&mut self) -> Result<String> {
        let subscription = self.name()?;
        self.expect_key(Word::On, "ON")?;
        let db = self.name()?;
        let token = self.scan();
        if token.kind != Kind::Dot {
            return Err(expected(&token, "."));
        }
        Ok(format!("{} ON {}.{}", name(&subscription), name(&db), name(&self.name()?)))
    }

    /// What follows KILL.
    pub(super) fn kill_query(&mut self) -> Result<Statement> {
        self.expect_key(Word::Query, "QUERY")?;
        let mut text = format!("KILL QUERY {}", self.unsigned()?);
        if self.accept_key(Word::On) {
            text += &format!(" ON {}", name(&self.name()?));
        }
        Ok(unsupported(Unsupported::KillQuery, text))
    }

    pub(super) fn drop_shard(&mut self) -> Result<Statement> {
        let text = format!("DROP SHARD {}", self.unsigned()?);
        Ok(unsupported(Unsupported::DropShard, text))
    }
}

fn unsupported(what: Unsupported, text: String) -> Statement {
    Statement::Unsupported { what, text }
}

fn aggregates(select: &Select) -> bool {
    let mut found = false;
    for field in &select.fields {
        visit::walk(&field.expr, &mut |expr| found |= matches!(expr, Expr::Call { .. }));
    }
    found
}

/// The interval of GROUP BY time, in nanoseconds; 0 without one.
fn interval(select: &Select) -> std::result::Result<i64, ()> {
    for dimension in &select.dimensions {
        if let Expr::Call { name, args } = dimension
            && name.eq_ignore_ascii_case("time")
        {
            return match args.first() {
                Some(Expr::Duration(nanoseconds)) => Ok(*nanoseconds),
                _ => Err(()),
            };
        }
    }
    Ok(0)
}
