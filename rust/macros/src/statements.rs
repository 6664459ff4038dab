//! Parses statements and expressions; calls of a rule's own functions are replaced by their bodies.
//!
//! Errors say what was expected. Does not resolve names.

use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{BinOp, Error, Ident, Lit, Result, Token, UnOp, braced, parenthesized};

use crate::tree::*;

syn::custom_keyword!(def);
syn::custom_keyword!(recall);

/// A function defined in a rule.
#[derive(Clone)]
pub struct Def {
    name: Ident,
    parameters: Vec<Ident>,
    statements: Vec<Statement>,
    value: Expr,
}

/// Names in parentheses.
pub fn names(input: ParseStream) -> Result<Vec<Ident>> {
    let inside;
    parenthesized!(inside in input);
    Ok(Punctuated::<Ident, Token![,]>::parse_terminated(&inside)?.into_iter().collect())
}

/// The functions that are defined here, if any.
pub fn parse_defs(input: ParseStream, defs: &mut Vec<Def>) -> Result<()> {
    while input.peek(def) {
        input.parse::<def>()?;
        let (name, parameters) = (input.parse()?, names(input)?);
        let body;
        braced!(body in input);
        let mut statements = Vec::new();
        while body.peek(Token![let]) {
            statement(&body, defs, &mut statements)?;
        }
        let value = expression(&body, defs, &mut statements)?;
        defs.push(Def { name, parameters, statements, value });
    }
    Ok(())
}

/// Parses one statement, preceded by the statements of the functions that it calls. `p -= x` becomes `p = p - x`.
pub fn statement(input: ParseStream, defs: &[Def], into: &mut Vec<Statement>) -> Result<()> {
    let recall = input.peek(recall) && input.peek2(Ident);
    let local = recall || input.peek(Token![let]);
    if recall {
        input.parse::<recall>()?;
    } else if local {
        input.parse::<Token![let]>()?;
    }
    let name: Ident = input.parse().map_err(|error| {
        Error::new(error.span(), "expected a statement: `let x = …;`, `x = …;`, or one with +=, -=, *= or /=")
    })?;
    let compound = match () {
        () if input.peek(Token![+=]) => Some("+"),
        () if input.peek(Token![-=]) => Some("-"),
        () if input.peek(Token![*=]) => Some("*"),
        () if input.peek(Token![/=]) => Some("/"),
        () => None,
    };
    if compound.is_some() && !local {
        input.parse::<BinOp>()?;
    } else {
        input.parse::<Token![=]>()?;
    }
    let value = expression(input, defs, into)?;
    input.parse::<Token![;]>()?;
    let value = match compound {
        Some(operator) => Expr::Binary(operator, Box::new(Expr::Name(name.clone())), Box::new(value)),
        None => value,
    };
    into.push(Statement { name, local, recall, value });
    Ok(())
}

/// Parses an expression; the statements of the functions that it calls go `before`.
pub fn expression(input: ParseStream, defs: &[Def], before: &mut Vec<Statement>) -> Result<Expr> {
    convert(input.parse::<syn::Expr>()?, defs, before)
}

const EXPECTED: &str =
    "expected numbers, names, + - * /, comparisons, && || !, calls of functions, or if/else with values";

fn convert(expr: syn::Expr, defs: &[Def], before: &mut Vec<Statement>) -> Result<Expr> {
    let span = expr.span();
    let wrong = || Error::new(span, EXPECTED);
    Ok(match expr {
        syn::Expr::Paren(inner) => convert(*inner.expr, defs, before)?,
        syn::Expr::Group(inner) => convert(*inner.expr, defs, before)?,
        syn::Expr::Lit(literal) => match literal.lit {
            Lit::Float(number) if number.suffix().is_empty() => Expr::Number(number.base10_digits().into(), span),
            Lit::Int(_) => return Err(Error::new(span, "numbers have a point: 1.0")),
            _ => return Err(wrong()),
        },
        syn::Expr::Path(path) => Expr::Name(path.path.require_ident().map_err(|_| wrong())?.clone()),
        syn::Expr::Unary(unary) => {
            let operator = match unary.op {
                UnOp::Neg(_) => "-",
                UnOp::Not(_) => "!",
                _ => return Err(wrong()),
            };
            Expr::Unary(operator, Box::new(convert(*unary.expr, defs, before)?))
        }
        syn::Expr::Binary(binary) => {
            let operator = match binary.op {
                BinOp::Add(_) => "+",
                BinOp::Sub(_) => "-",
                BinOp::Mul(_) => "*",
                BinOp::Div(_) => "/",
                BinOp::Eq(_) => "==",
                BinOp::Ne(_) => "!=",
                BinOp::Lt(_) => "<",
                BinOp::Le(_) => "<=",
                BinOp::Gt(_) => ">",
                BinOp::Ge(_) => ">=",
                BinOp::And(_) => "&&",
                BinOp::Or(_) => "||",
                _ => return Err(wrong()),
            };
            let left = convert(*binary.left, defs, before)?;
            Expr::Binary(operator, Box::new(left), Box::new(convert(*binary.right, defs, before)?))
        }
        syn::Expr::If(branch) => {
            let condition = convert(*branch.cond, defs, before)?;
            let yes = block_value(branch.then_branch, defs, before)?;
            let (_, other) = branch.else_branch.ok_or_else(|| Error::new(span, "an `if` needs an `else` here"))?;
            let no = match *other {
                syn::Expr::Block(block) => block_value(block.block, defs, before)?,
                other => convert(other, defs, before)?,
            };
            Expr::Call(Ident::new("select", span), vec![condition, yes, no])
        }
        syn::Expr::Call(call) => {
            let syn::Expr::Path(path) = *call.func else { return Err(wrong()) };
            let name = path.path.require_ident().map_err(|_| wrong())?.clone();
            let arguments = call.args.into_iter().map(|a| convert(a, defs, before)).collect::<Result<Vec<_>>>()?;
            match defs.iter().find(|def| def.name == name) {
                Some(def) => inline(def, &name, arguments, before)?,
                None => Expr::Call(name, arguments),
            }
        }
        _ => return Err(wrong()),
    })
}

fn block_value(block: syn::Block, defs: &[Def], before: &mut Vec<Statement>) -> Result<Expr> {
    let span = block.span();
    match <[syn::Stmt; 1]>::try_from(block.stmts) {
        Ok([syn::Stmt::Expr(value, None)]) => convert(value, defs, before),
        _ => Err(Error::new(span, "a branch must be one expression; write `let` statements before the `if`")),
    }
}

/// Inlines a call of a rule's function; its `let`s become statements before the call, under fresh names.
fn inline(def: &Def, called: &Ident, arguments: Vec<Expr>, before: &mut Vec<Statement>) -> Result<Expr> {
    if arguments.len() != def.parameters.len() {
        let message = format!("{} takes {} arguments, got {}", def.name, def.parameters.len(), arguments.len());
        return Err(Error::new(called.span(), message));
    }
    let mut known: Vec<(Ident, Expr)> = def.parameters.iter().cloned().zip(arguments).collect();
    for statement in &def.statements {
        let mut name = statement.name.clone();
        while before.iter().any(|earlier| earlier.name == name) {
            name = Ident::new(&format!("{name}_"), called.span());
        }
        let value = substitute(&statement.value, &known);
        before.push(Statement { name: name.clone(), local: true, recall: false, value });
        known.retain(|(parameter, _)| *parameter != statement.name);
        known.push((statement.name.clone(), Expr::Name(name)));
    }
    Ok(substitute(&def.value, &known))
}

fn substitute(expr: &Expr, known: &[(Ident, Expr)]) -> Expr {
    let one = |expr: &Expr| Box::new(substitute(expr, known));
    match expr {
        Expr::Name(name) => known.iter().find(|(k, _)| k == name).map_or_else(|| expr.clone(), |(_, v)| v.clone()),
        Expr::Number(..) => expr.clone(),
        Expr::Unary(operator, a) => Expr::Unary(operator, one(a)),
        Expr::Binary(operator, a, b) => Expr::Binary(operator, one(a), one(b)),
        Expr::Call(name, arguments) => {
            Expr::Call(name.clone(), arguments.iter().map(|argument| substitute(argument, known)).collect())
        }
    }
}
