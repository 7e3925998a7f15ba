//! PTX text to statements: names, scopes, labels and operands, without knowing what an instruction means.

use crate::fault::ParseError;
use crate::lexer::{Lexer, Number, Token};
use crate::syntax::{Function, Operand, Statement, Text, Variable, type_bytes};

/// Parses a file.
pub fn parse(ptx: &str) -> Result<Text, ParseError> {
    Parser { lexer: Lexer::new(ptx), text: Text::default() }.module()
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    text: Text,
}

impl Parser<'_> {
    fn module(mut self) -> Result<Text, ParseError> {
        let mut external = false;
        while let Some(token) = self.lexer.next()? {
            let Token::Word(word) = token else {
                if token == Token::Mark(';') {
                    continue;
                }
                return Err(self.lexer.error("a directive was expected"));
            };
            match word {
                ".version" | ".target" | ".address_size" | ".file" => self.lexer.skip_line(),
                ".visible" | ".weak" | ".common" => {}
                ".extern" => external = true,
                ".section" => self.skip_braces()?,
                ".pragma" | ".alias" => self.skip_statement()?,
                ".entry" | ".func" => {
                    self.function(word == ".entry")?;
                    external = false;
                }
                ".global" | ".const" | ".shared" | ".local" => {
                    let variables = self.variable(&word[1..], 0, external)?;
                    self.text.variables.extend(variables);
                    external = false;
                }
                _ => return Err(self.lexer.error(&format!("unknown directive `{word}`"))),
            }
        }
        Ok(self.text)
    }

    fn skip_braces(&mut self) -> Result<(), ParseError> {
        let mut depth = 0;
        while let Some(token) = self.lexer.next()? {
            match token {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') if depth == 1 => return Ok(()),
                Token::Mark('}') => depth -= 1,
                _ => {}
            }
        }
        Err(self.lexer.error("`}` is missing"))
    }

    fn skip_statement(&mut self) -> Result<(), ParseError> {
        while let Some(token) = self.lexer.next()? {
            if token == Token::Mark(';') {
                return Ok(());
            }
        }
        Err(self.lexer.error("`;` is missing"))
    }

    fn function(&mut self, entry: bool) -> Result<(), ParseError> {
        let mut function = Function { entry, line: self.lexer.line(), scopes: vec![0], ..Function::default() };
        if !entry && self.lexer.peek_mark() == Some('(') {
            function.returns = self.parameters()?;
        }
        function.name = self.word("a function name")?.to_owned();
        if self.lexer.peek_mark() == Some('(') {
            function.params = self.parameters()?;
        }
        loop {
            match self.lexer.next()? {
                Some(Token::Mark('{')) => break,
                Some(Token::Mark(';')) => return Ok(()),
                Some(Token::Word(word)) if word.starts_with('.') => {
                    let mut values = Vec::new();
                    while let Some(value) = self.lexer.peek_integer() {
                        values.push(value);
                        self.lexer.next()?;
                        if self.lexer.peek_mark() == Some(',') {
                            self.lexer.next()?;
                        }
                    }
                    function.directives.insert(word.to_owned(), values);
                }
                Some(Token::Word(_) | Token::Text | Token::Mark(_)) => {}
                _ => return Err(self.lexer.error("the body of a function was expected")),
            }
        }
        self.body(&mut function)?;
        self.text.functions.push(function);
        Ok(())
    }

    fn word(&mut self, what: &str) -> Result<&str, ParseError> {
        match self.lexer.next()? {
            Some(Token::Word(word)) => Ok(word),
            _ => Err(self.lexer.error(&format!("{what} was expected"))),
        }
    }

    fn parameters(&mut self) -> Result<Vec<Variable>, ParseError> {
        let mut all = Vec::new();
        self.expect('(')?;
        loop {
            match self.lexer.next()? {
                Some(Token::Mark(')')) => return Ok(all),
                Some(Token::Mark(',')) => {}
                Some(Token::Word(".param" | ".reg")) => all.push(self.one_variable("param", 0)?),
                _ => return Err(self.lexer.error("`.param` was expected")),
            }
        }
    }

    fn expect(&mut self, mark: char) -> Result<(), ParseError> {
        match self.lexer.next()? {
            Some(Token::Mark(found)) if found == mark => Ok(()),
            _ => Err(self.lexer.error(&format!("`{mark}` was expected"))),
        }
    }

    /// `.align 4 .b8 name[512]`, without an initialiser.
    fn one_variable(&mut self, space: &str, scope: usize) -> Result<Variable, ParseError> {
        let (mut align, mut element, mut lanes) = (0, 0, 1);
        let name = loop {
            let word = self.word("a variable")?.to_owned();
            match word.as_str() {
                ".align" => align = self.integer()? as u64,
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                ".ptr" | ".global" | ".const" | ".shared" | ".local" => {}
                _ if word.starts_with('.') => {
                    element = type_bytes(&word).ok_or_else(|| self.lexer.error(&format!("unknown type `{word}`")))?;
                }
                _ => break word,
            }
        };
        let mut bytes = element * lanes;
        while self.lexer.peek_mark() == Some('[') {
            self.lexer.next()?;
            let count = match self.lexer.peek_integer() {
                Some(_) => self.integer()? as u64,
                None => 0,
            };
            bytes *= count;
            self.expect(']')?;
        }
        let align = align.max(element * lanes).max(1);
        Ok(Variable { space: space.to_owned(), name, bytes, align, data: vec![0; element as usize], scope })
    }

    fn integer(&mut self) -> Result<i64, ParseError> {
        match self.lexer.next()? {
            Some(Token::Number(Number::Integer(value))) => Ok(value),
            _ => Err(self.lexer.error("a whole number was expected")),
        }
    }

    /// The declarations up to `;`. `data` of what comes back is filled to `bytes`.
    fn variable(&mut self, space: &str, scope: usize, external: bool) -> Result<Vec<Variable>, ParseError> {
        let mut variable = self.one_variable(space, scope)?;
        let element = variable.data.len();
        variable.data = Vec::new();
        if self.lexer.peek_mark() == Some('=') {
            self.lexer.next()?;
            self.initialiser(&mut variable.data, element)?;
        }
        if variable.bytes == 0 && !external && !variable.data.is_empty() {
            variable.bytes = variable.data.len() as u64;
        }
        variable.data.resize(variable.bytes as usize, 0);
        self.expect(';')?;
        Ok(vec![variable])
    }

    fn initialiser(&mut self, data: &mut Vec<u8>, element: usize) -> Result<(), ParseError> {
        let mut depth = 0;
        let mut negative = false;
        loop {
            match self.lexer.next()? {
                Some(Token::Mark('{')) => depth += 1,
                Some(Token::Mark('}')) => depth -= 1,
                Some(Token::Mark(',')) => {}
                Some(Token::Mark('-')) => {
                    negative = true;
                    continue;
                }
                Some(Token::Number(number)) => {
                    let bits = match number {
                        Number::Integer(value) if negative => value.wrapping_neg() as u64,
                        Number::Integer(value) => value as u64,
                        Number::Single(bits) => bits as u64,
                        Number::Double(bits) if element == 4 => (f64::from_bits(bits) as f32).to_bits() as u64,
                        Number::Double(bits) => bits,
                    };
                    data.extend_from_slice(&bits.to_le_bytes()[..element]);
                    negative = false;
                }
                _ => return Err(self.lexer.error("an initial value was expected (addresses are not supported there)")),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn body(&mut self, function: &mut Function) -> Result<(), ParseError> {
        let mut scope = 0;
        loop {
            let Some(token) = self.lexer.next()? else { return Err(self.lexer.error("`}` is missing")) };
            match token {
                Token::Mark('{') => {
                    function.scopes.push(scope);
                    scope = function.scopes.len() - 1;
                }
                Token::Mark('}') if scope == 0 => return Ok(()),
                Token::Mark('}') => scope = function.scopes[scope],
                Token::Mark(';') => {}
                Token::Mark('@') => {
                    let negated = self.lexer.peek_mark() == Some('!');
                    if negated {
                        self.lexer.next()?;
                    }
                    let name = self.word("a predicate")?.to_owned();
                    let opcode = self.word("an instruction")?.to_owned();
                    self.instruction(function, scope, Some((name, negated)), opcode)?;
                }
                Token::Word(word) if word.starts_with('.') => {
                    let word = word.to_owned();
                    self.directive(function, scope, &word)?;
                }
                Token::Word(word) => {
                    let word = word.to_owned();
                    if self.lexer.peek_mark() == Some(':') {
                        self.lexer.next()?;
                        if !self.table(function, scope, &word)? {
                            function.labels.insert((scope, word), function.statements.len());
                        }
                    } else {
                        self.instruction(function, scope, None, word)?;
                    }
                }
                _ => return Err(self.lexer.error("an instruction was expected")),
            }
        }
    }

    /// `.branchtargets` after its label.
    fn table(&mut self, function: &mut Function, scope: usize, name: &str) -> Result<bool, ParseError> {
        match self.lexer.peek_word() {
            Some(".branchtargets") => {
                self.lexer.next()?;
                let mut labels = Vec::new();
                loop {
                    match self.lexer.next()? {
                        Some(Token::Word(word)) => labels.push(word.to_owned()),
                        Some(Token::Mark(',')) => {}
                        Some(Token::Mark(';')) => break,
                        _ => return Err(self.lexer.error("a label was expected")),
                    }
                }
                function.tables.insert((scope, name.to_owned()), labels);
                Ok(true)
            }
            Some(".callprototype" | ".calltargets") => {
                self.skip_statement()?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn directive(&mut self, function: &mut Function, scope: usize, word: &str) -> Result<(), ParseError> {
        match word {
            ".loc" => self.lexer.skip_line(),
            ".pragma" => self.skip_statement()?,
            ".reg" => self.registers(function, scope)?,
            ".shared" | ".local" | ".param" => {
                let variables = self.variable(&word[1..], scope, false)?;
                function.variables.extend(variables);
            }
            _ => return Err(self.lexer.error(&format!("unknown directive `{word}`"))),
        }
        Ok(())
    }

    fn registers(&mut self, function: &mut Function, scope: usize) -> Result<(), ParseError> {
        let kind = self.word("a register type")?.to_owned();
        loop {
            let name = self.word("a register")?.to_owned();
            if self.lexer.peek_mark() == Some('<') {
                self.lexer.next()?;
                let count = self.integer()?;
                self.expect('>')?;
                for index in 0..count {
                    function.registers.insert((scope, format!("{name}{index}")), kind.clone());
                }
            } else {
                function.registers.insert((scope, name), kind.clone());
            }
            match self.lexer.next()? {
                Some(Token::Mark(',')) => {}
                Some(Token::Mark(';')) => return Ok(()),
                _ => return Err(self.lexer.error("`,` or `;` was expected")),
            }
        }
    }

    fn instruction(
        &mut self,
        function: &mut Function,
        scope: usize,
        guard: Option<(String, bool)>,
        opcode: String,
    ) -> Result<(), ParseError> {
        let line = self.lexer.line();
        let mut operands = Vec::new();
        loop {
            match self.lexer.peek_mark() {
                Some(';') => {
                    self.lexer.next()?;
                    break;
                }
                Some(',') => {
                    self.lexer.next()?;
                }
                _ => operands.push(self.operand()?),
            }
        }
        function.statements.push(Statement { line, scope, guard, opcode, operands });
        Ok(())
    }

    fn sequence(&mut self, end: char) -> Result<Vec<Operand>, ParseError> {
        let mut all = Vec::new();
        loop {
            match self.lexer.peek_mark() {
                Some(mark) if mark == end => {
                    self.lexer.next()?;
                    return Ok(all);
                }
                Some(',') => {
                    self.lexer.next()?;
                }
                _ => all.push(self.operand()?),
            }
        }
    }

    fn operand(&mut self) -> Result<Operand, ParseError> {
        let first = match self.lexer.next()? {
            Some(Token::Word(word)) => Operand::Name(word.to_owned()),
            Some(Token::Number(number)) => constant(number, false),
            Some(Token::Mark('-')) => match self.lexer.next()? {
                Some(Token::Number(number)) => constant(number, true),
                _ => return Err(self.lexer.error("a number was expected after `-`")),
            },
            Some(Token::Mark('!')) => Operand::Not(self.word("a predicate")?.to_owned()),
            Some(Token::Mark('{')) => Operand::Vector(self.sequence('}')?),
            Some(Token::Mark('[')) => Operand::Memory(self.sequence(']')?),
            Some(Token::Mark('(')) => Operand::List(self.sequence(')')?),
            _ => return Err(self.lexer.error("an operand was expected")),
        };
        match self.lexer.peek_mark() {
            Some('|') => {
                self.lexer.next()?;
                let second = self.operand()?;
                Ok(Operand::Pair(Box::new(first), Box::new(second)))
            }
            Some(mark @ ('+' | '-')) => {
                self.lexer.next()?;
                let again = self.lexer.peek_mark() == Some('-');
                if again {
                    self.lexer.next()?;
                }
                let value = self.integer()?;
                let value = if (mark == '-') != again { value.wrapping_neg() } else { value };
                match first {
                    Operand::Name(name) => Ok(Operand::Offset(name, value)),
                    Operand::Integer(base) => Ok(Operand::Integer(base.wrapping_add(value))),
                    _ => Err(self.lexer.error("an offset can only follow a name")),
                }
            }
            _ => Ok(first),
        }
    }
}

fn constant(number: Number, negative: bool) -> Operand {
    match number {
        Number::Integer(value) if negative => Operand::Integer(value.wrapping_neg()),
        Number::Integer(value) => Operand::Integer(value),
        Number::Single(bits) => Operand::Single(bits ^ ((negative as u32) << 31)),
        Number::Double(bits) => Operand::Double(bits ^ ((negative as u64) << 63)),
    }
}
