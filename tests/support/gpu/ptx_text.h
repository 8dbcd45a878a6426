/* PTX text read to instructions, and how the result is run: what drives ptx.h, which includes this at its end.

   What nvcc writes is understood, not all that the ISA allows; anything else is refused by a sentence that names it. */
#pragma once
#include <exception>
#include <stdexcept>

/* --------------------------------------------------------------------------------------------------------------- text */

static std::string without_comments(const char *text)
{
    std::string s;
    for (const char *p = text; *p; p++) {
        if (p[0] == '/' && p[1] == '/')
            p += strcspn(p, "\n");
        if (!*p)
            break;
        s += *p == '\t' || *p == '\n' || *p == '\r' ? ' ' : *p;
    }
    return s;
}

static std::string trimmed(const std::string &s)
{
    size_t begin = s.find_first_not_of(' '), end = s.find_last_not_of(' ');
    return begin == std::string::npos ? "" : s.substr(begin, end - begin + 1);
}

/* Pieces between commas that stand in no brackets. */
static std::vector<std::string> pieces(const std::string &s)
{
    std::vector<std::string> all;
    int depth = 0;
    size_t begin = 0;
    for (size_t at = 0; at <= s.size(); at++) {
        char c = at < s.size() ? s[at] : ',';
        depth += (c == '{' || c == '[' || c == '(') - (c == '}' || c == ']' || c == ')');
        if (c == ',' && !depth) {
            all.push_back(trimmed(s.substr(begin, at - begin)));
            begin = at + 1;
        }
    }
    if (all.size() == 1 && all[0].empty())
        all.clear();
    return all;
}

[[noreturn]] static void refuse(const std::string &why, const std::string &what)
{
    throw std::runtime_error(why + ": " + what.substr(0, 120));
}

/* The bits of a number: 12, -3, 0x1F, 0f3F800000, 0d3FF0000000000000; a float of 32 bits has the lower half. */
static bool number_of(const std::string &s, uint64_t *value)
{
    char *end;
    if (s.empty() || !(isdigit((unsigned char)s[0]) || s[0] == '-'))
        return false;
    bool bits = s.size() > 2 && s[0] == '0' && strchr("fFdD", s[1]);
    std::string digits = bits ? s.substr(2) : s;
    if (digits.back() == 'U')
        digits.pop_back();
    *value = digits[0] == '-' ? (uint64_t)strtoll(digits.c_str(), &end, 0) : strtoull(digits.c_str(), &end, bits ? 16 : 0);
    return !*end;
}

static int bytes_of_type(const std::string &type)
{
    int bits = atoi(type.c_str() + strcspn(type.c_str(), "0123456789"));
    if (bits % 8 || bits < 8 || bits > 64)
        refuse("a type that is not known", type);
    return bits / 8;
}

/* ------------------------------------------------------------------------------------------------------- declarations */

/* `.align 8 .b8 name[256] = {…}`, after its state space. */
struct declaration {
    std::string name, values;
    int align = 1, size = 1, count = 1;
    bool unbounded = false;

    explicit declaration(std::string s)
    {
        size_t equals = s.find('=');
        if (equals != std::string::npos) {
            values = s.substr(equals + 1);
            s = s.substr(0, equals);
        }
        char type[16], word[1024];
        int at = 0;
        if (sscanf(s.c_str(), " .align %d%n", &align, &at) == 1)
            s = s.substr((size_t)at);
        if (sscanf(s.c_str(), " .%15s %1023[^[ ] %n", type, word, &at) != 2)
            refuse("a declaration that is not known", s);
        name = word;
        size = bytes_of_type(type);
        align = align > size ? align : size;
        std::string length = trimmed(s.substr((size_t)at));
        if (!length.empty() && sscanf(length.c_str(), "[%d]", &count) != 1) {
            unbounded = true;
            count = 0;
        }
    }

    int bytes() const { return size * count; }
};

/* What a name stands for: an address, by a register that holds where it is counted from, and bytes from there. */
struct symbol {
    int base;
    int64_t offset;
};

static int laid_out(int *end, int align, int bytes)
{
    int at = (*end + align - 1) / align * align;
    *end = at + bytes;
    return at;
}

/* --------------------------------------------------------------------------------------------------------- a function */

struct reader {
    struct ptx_module *module;
    std::vector<std::string> dynamic; /* names of dynamic shared memory */
    std::map<std::string, uint64_t> shared; /* of several functions: each has room for all of it */
    int shared_end = 0;

    struct ptx_kernel *k = NULL;
    std::vector<std::map<std::string, struct symbol>> symbols; /* by scope */
    std::vector<std::map<std::string, std::pair<int, int>>> registers; /* by scope: the first of a family, how many */
    std::map<uint64_t, int> constants;
    std::vector<int> dynamic_constants;
    std::map<std::string, size_t> labels;
    std::vector<std::pair<size_t, std::string>> branches, calls;

    int constant(uint64_t value)
    {
        auto found = constants.find(value);
        if (found != constants.end())
            return found->second;
        k->constants.push_back({k->registers, value});
        return constants[value] = k->registers++;
    }

    int register_named(const std::string &name)
    {
        size_t digits = name.find_last_not_of("0123456789") + 1;
        for (auto scope = registers.rbegin(); scope != registers.rend(); ++scope) {
            auto one = scope->find(name);
            if (one != scope->end() && one->second.second == 0)
                return one->second.first;
            auto family = scope->find(name.substr(0, digits));
            if (digits < name.size() && family != scope->end() && atoi(name.c_str() + digits) < family->second.second)
                return family->second.first + atoi(name.c_str() + digits);
        }
        return NONE;
    }

    /* `.reg .b32 %r<12>` or `.reg .pred one, another`. */
    void declare_registers(const std::string &s)
    {
        for (const std::string &each : pieces(trimmed(s.substr(s.find(' ', s.find('.', 1)))))) {
            size_t count = each.find('<');
            int many = count == std::string::npos ? 0 : atoi(each.c_str() + count + 1);
            registers.back()[each.substr(0, count)] = {k->registers, many};
            k->registers += many ? many : 1;
        }
    }

    bool find_symbol(const std::string &name, struct symbol *found)
    {
        for (auto scope = symbols.rbegin(); scope != symbols.rend(); ++scope)
            if (scope->count(name))
                return *found = (*scope)[name], true;
        if (module->variables.count(name))
            return *found = {constant((uint64_t)module->variables[name]), 0}, true;
        if (shared.count(name))
            return *found = {constant(shared[name]), 0}, true;
        for (const std::string &each : dynamic)
            if (each == name) {
                /* it lies behind what the function declares: how much that is, is known at its end */
                k->constants.push_back({k->registers, 0});
                dynamic_constants.push_back((int)k->constants.size() - 1);
                return *found = {k->registers++, 0}, true;
            }
        return false;
    }

    /* A register, a number, or nothing. */
    int operand(const std::string &s)
    {
        uint64_t value;
        if (s == "_")
            return NONE;
        if (number_of(s, &value))
            return constant(value);
        int place = register_named(s);
        if (place == NONE)
            refuse("an operand that is not known", s);
        return place;
    }

    /* `name`, `name+4`, `%rd1+-8`, `4096`. */
    struct symbol address(const std::string &s)
    {
        size_t plus = s.find('+');
        std::string base = trimmed(s.substr(0, plus));
        uint64_t more = 0;
        struct symbol found;
        if (plus != std::string::npos && !number_of(trimmed(s.substr(plus + 1)), &more))
            refuse("an address that is not known", s);
        uint64_t value;
        if (number_of(base, &value))
            return {constant(value), (int64_t)more};
        if (int place = register_named(base); place != NONE)
            return {place, (int64_t)more};
        if (!find_symbol(base, &found))
            refuse("an address that is not known", s);
        return {found.base, found.offset + (int64_t)more};
    }

    void add(struct ptx_instruction &&made, const std::string &opcode)
    {
        auto &names = module->opcodes;
        size_t at = 0;
        while (at < names.size() && names[at] != opcode)
            at++;
        if (at == names.size())
            names.push_back(opcode);
        made.opcode = (int)at;
        k->code.push_back(std::move(made));
    }

    static std::string inside(const std::string &s) { return s.substr(1, s.size() - 2); }

    void special(const std::string &name, struct ptx_instruction *made)
    {
        static const struct {
            const char *name;
            ptx_run run;
        } known[] = {
#define SPECIAL(name, value) {name, RUN { put<uint32_t>(f, i->o[0], (uint32_t)(value)); }}
            SPECIAL("%tid.x", threadIdx.x), SPECIAL("%tid.y", threadIdx.y), SPECIAL("%tid.z", threadIdx.z),
            SPECIAL("%ntid.x", blockDim.x), SPECIAL("%ntid.y", blockDim.y), SPECIAL("%ntid.z", blockDim.z),
            SPECIAL("%ctaid.x", blockIdx.x), SPECIAL("%ctaid.y", blockIdx.y), SPECIAL("%ctaid.z", blockIdx.z),
            SPECIAL("%nctaid.x", gridDim.x), SPECIAL("%nctaid.y", gridDim.y), SPECIAL("%nctaid.z", gridDim.z),
            SPECIAL("%laneid", lane_now()),
#undef SPECIAL
            {"%clock64", RUN { static uint64_t now; put<uint64_t>(f, i->o[0], now++); }},
        };
        for (auto &each : known)
            if (name == each.name)
                made->run = each.run;
        if (!made->run)
            refuse("a register that is not known", name);
    }

    /* `mov` of an address, of parts of a register, or of a special register: whether it was one. */
    bool odd_move(const std::string &opcode, const std::vector<std::string> &s, struct ptx_instruction *made)
    {
        struct symbol found;
        if (s[0][0] == '{') {
            for (const std::string &each : pieces(inside(s[0])))
                made->list.push_back(operand(each));
            made->o[1] = operand(s[1]);
            made->offset = 8 * bytes_of_type(opcode.substr(4)) / (int)made->list.size();
            made->run = RUN {
                for (size_t n = 0; n < i->list.size(); n++)
                    put<uint64_t>(f, i->list[n], f->r[i->o[1]] >> n * (size_t)i->offset & (((uint64_t)1 << i->offset) - 1));
            };
        } else if (s[1][0] == '{') {
            made->o[0] = operand(s[0]);
            for (const std::string &each : pieces(inside(s[1])))
                made->list.push_back(operand(each));
            made->offset = 8 * bytes_of_type(opcode.substr(4)) / (int)made->list.size();
            made->run = RUN {
                uint64_t all = 0;
                for (size_t n = 0; n < i->list.size(); n++)
                    all |= (f->r[i->list[n]] & (((uint64_t)1 << i->offset) - 1)) << n * (size_t)i->offset;
                put<uint64_t>(f, i->o[0], all);
            };
        } else if (s[1][0] == '%' && register_named(s[1]) == NONE) {
            made->o[0] = operand(s[0]);
            special(s[1], made);
        } else if (find_symbol(trimmed(s[1].substr(0, s[1].find('+'))), &found)) {
            found = address(s[1]);
            made->o[0] = operand(s[0]);
            made->o[1] = found.base;
            made->offset = found.offset;
            made->run = RUN { put<uint64_t>(f, i->o[0], f->r[i->o[1]] + (uint64_t)i->offset); };
        } else {
            return false;
        }
        return true;
    }

    /* `call.uni (result), name, (parameter, …)`. */
    void read_call(const std::vector<std::string> &s, struct ptx_instruction *made)
    {
        bool returns = s[0][0] == '(';
        std::string name = s[returns];
        std::vector<std::string> places = returns ? pieces(inside(s[0])) : std::vector<std::string>();
        if (s.size() > 1u + returns)
            for (const std::string &each : pieces(inside(s[1u + returns])))
                places.push_back(each);
        for (const std::string &each : places) {
            struct symbol found;
            if (!find_symbol(each, &found) || found.base != FRAME)
                refuse("a parameter that is not known", each);
            made->list.push_back((int)found.offset);
        }
        calls.push_back({k->code.size(), name});
    }

    void statement(std::string s)
    {
        struct ptx_instruction made;
        if (s[0] == '@') {
            size_t space = s.find(' ');
            made.guard_is = s[1] != '!';
            made.guard = operand(s.substr(made.guard_is ? 1 : 2, space - (made.guard_is ? 1 : 2)));
            s = trimmed(s.substr(space));
        }
        size_t space = s.find(' ');
        std::string opcode = s.substr(0, space);
        std::vector<std::string> given = pieces(space == std::string::npos ? "" : trimmed(s.substr(space)));
        if (opcode.rfind("red.", 0) == 0) { /* a change whose result nobody wants */
            opcode = "atom" + opcode.substr(3);
            given.insert(given.begin(), "_");
        }
        if (opcode.rfind("mov.", 0) == 0 && odd_move(opcode, given, &made)) {
            add(std::move(made), opcode);
            return;
        }
        made.run = instruction(opcode, &made);
        if (!made.run)
            refuse("an instruction that is not known", s);
        if (opcode == "bra" || opcode == "bra.uni") {
            branches.push_back({k->code.size(), given.at(0)});
        } else if (opcode == "call" || opcode == "call.uni") {
            read_call(given, &made);
        } else {
            int at = 0;
            if (opcode.rfind("wgmma.mma_async.", 0) == 0) {
                /* behind the predicate: neither operand is negated, neither lies the other way */
                if (given.size() != 8 || given[4] != "1" || given[5] != "1" || given[6] != "0" || given[7] != "0")
                    refuse("an instruction that is not known", s);
                given.resize(4);
            }
            for (const std::string &each : given) {
                size_t bar = each.find('|');
                if (each[0] == '{') {
                    for (const std::string &one : pieces(inside(each)))
                        made.list.push_back(operand(one));
                } else if (each[0] == '[') {
                    std::vector<std::string> in = pieces(inside(each));
                    struct symbol found = address(in[0]);
                    if (found.offset && (opcode.rfind("cp.", 0) == 0 || opcode.rfind("mbarrier.", 0) == 0))
                        refuse("an address that something is added to", s); /* their addresses are registers in our kernels */
                    made.offset += found.offset;
                    made.o[at++] = found.base;
                    if (in.size() > 1) /* a box: where it begins */
                        for (const std::string &one : pieces(inside(in[1])))
                            made.list.push_back(operand(one));
                } else if (bar != std::string::npos) {
                    made.o[SECOND] = operand(each.substr(bar + 1));
                    made.o[at++] = operand(each.substr(0, bar));
                } else if (at < 6) {
                    made.o[at++] = operand(each);
                } else {
                    refuse("an instruction of more operands than are known", s);
                }
            }
            if ((opcode.rfind("ld", 0) == 0 || opcode.rfind("st", 0) == 0) && made.list.empty()) {
                /* an address, and a register that comes before it or behind it */
                bool loads = opcode[0] == 'l';
                made.list.push_back(made.o[loads ? 0 : 1]);
                made.o[0] = made.o[loads ? 1 : 0];
            }
        }
        add(std::move(made), opcode);
    }

    /* `.param`, `.local` and `.shared` in a function. */
    void declare(const std::string &s)
    {
        if (s.rfind(".reg", 0) == 0) {
            declare_registers(s);
        } else if (s.rfind(".pragma", 0) == 0) {
        } else if (s.rfind(".shared", 0) == 0) {
            struct declaration d(s.substr(7));
            symbols.back()[d.name] = {constant((uint64_t)(GUARD_AROUND_SHARED + laid_out(&k->shared, d.align, d.bytes()))), 0};
        } else if (s.rfind(".local", 0) == 0 || s.rfind(".param", 0) == 0) {
            struct declaration d(s.substr(6));
            symbols.back()[d.name] = {FRAME, laid_out(&k->memory, d.align < 16 ? 16 : d.align, d.bytes())};
        } else {
            refuse("a directive that is not known", s);
        }
    }

    /* A function's head: `.func (.param .b32 result) name (.param .b64 one, …)`, `.entry name (.param …) .maxntid 128, 1, 1`. */
    std::string head(const std::string &s, bool entry)
    {
        size_t at = s.find(entry ? ".entry" : ".func") + (entry ? 6 : 5);
        std::vector<std::pair<int, int>> results;
        std::vector<std::pair<std::string, std::pair<int, int>>> named;
        int end = 0;
        auto parameters = [&](const std::string &list, std::vector<std::pair<int, int>> *places) {
            for (const std::string &each : pieces(list)) {
                struct declaration d(each.substr(6));
                std::pair<int, int> place = {laid_out(&end, entry ? d.align : 16, d.bytes()), d.bytes()};
                places->push_back(place);
                named.push_back({d.name, place});
            }
        };
        size_t open = s.find_first_not_of(' ', at);
        if (s[open] == '(') {
            size_t close = s.find(')', open);
            parameters(s.substr(open + 1, close - open - 1), &results);
            at = close + 1;
        }
        open = s.find('(', at);
        std::string name = trimmed(s.substr(at, open - at));
        size_t close = open == std::string::npos ? s.size() : s.find(')', open);
        struct ptx_kernel *&found = module->functions[name];
        if (!found)
            found = new ptx_kernel();
        k = found;
        k->module = module;
        k->name = name;
        k->results = results;
        k->parameters.clear();
        if (open != std::string::npos)
            parameters(s.substr(open + 1, close - open - 1), &k->parameters);
        k->memory = end;
        k->argument_bytes = entry ? end : 0;
        symbols = {{}};
        for (auto &each : named)
            symbols.back()[each.first] = {entry ? ARGUMENT : FRAME, each.second.first};
        if (size_t most = s.find(".maxntid"); most != std::string::npos)
            k->most_threads = atoi(s.c_str() + most + 8);
        return name;
    }

    /* From behind a function's opening brace; returns where it ends. */
    size_t body(const std::string &text, size_t at)
    {
        registers = {{}};
        constants.clear(), dynamic_constants.clear(), labels.clear(), branches.clear(), calls.clear();
        k->shared = shared_end;
        while (!registers.empty()) {
            at = text.find_first_not_of(' ', at);
            if (at == std::string::npos)
                refuse("a function without an end", k->name);
            if (text[at] == '{' || text[at] == '}') {
                bool opens = text[at++] == '{';
                if (opens) {
                    registers.push_back({}), symbols.push_back({});
                } else {
                    registers.pop_back(), symbols.pop_back();
                }
                continue;
            }
            size_t end = text.find_first_of(";:", at);
            /* "::" is part of an opcode, a label ends with ":" */
            while (end != std::string::npos && text[end] == ':' && (text[end + 1] == ':' || text[end - 1] == ':'))
                end = text.find_first_of(";:", end + 1);
            if (end == std::string::npos)
                refuse("a statement without an end", text.substr(at));
            std::string s = trimmed(text.substr(at, end - at));
            if (text[end] == ':')
                labels[s] = k->code.size();
            else if (s[0] == '.')
                declare(s);
            else
                statement(s);
            at = end + 1;
        }
        statement_end();
        return at;
    }

    void statement_end()
    {
        struct ptx_instruction last;
        last.run = leave;
        add(std::move(last), "ret");
        for (auto &each : branches) {
            if (!labels.count(each.second))
                refuse("a label that is not known", each.second);
            k->code[each.first].offset = (int64_t)labels[each.second];
        }
        for (auto &each : calls) {
            if (!module->functions.count(each.second))
                refuse("a function that is not known", each.second);
            k->code[each.first].callee = module->functions[each.second];
        }
        k->shared = (k->shared + 15) / 16 * 16;
        for (int each : dynamic_constants)
            k->constants[(size_t)each].second = (uint64_t)(GUARD_AROUND_SHARED + k->shared);
    }

    /* `.global .align 2 .b8 table[8] = {…}`. */
    void variable(const std::string &s)
    {
        struct declaration d(s);
        uint8_t *room = (uint8_t *)emulated_allocate((size_t)d.bytes());
        memset(room, 0, (size_t)d.bytes());
        int at = 0;
        std::string values = trimmed(d.values);
        if (!values.empty() && values[0] == '{')
            values = inside(values);
        for (const std::string &each : pieces(values)) {
            uint64_t value;
            if (!number_of(each, &value) || at >= d.count)
                refuse("a value that is not known", each);
            memcpy(room + d.size * at++, &value, (size_t)d.size);
        }
        module->variables[d.name] = room;
    }

    void read(const std::string &text)
    {
        for (size_t at = 0; (at = text.find_first_not_of(' ', at)) != std::string::npos;) {
            size_t space = text.find(' ', at);
            std::string word = text.substr(at, space - at);
            if (word == ".version" || word == ".target" || word == ".address_size") {
                at = text.find_first_of(" ", text.find_first_not_of(' ', space));
                continue;
            }
            size_t end = text.find_first_of(";{", at);
            if (end == std::string::npos)
                refuse("text that is not known", text.substr(at));
            std::string s = trimmed(text.substr(at, end - at));
            bool entry = s.find(".entry") != std::string::npos, function = s.find(".func") != std::string::npos;
            if (entry || function) {
                head(s, entry);
                at = text[end] == ';' ? end + 1 : body(text, end + 1);
                continue;
            }
            end = text.find(';', at);
            s = trimmed(text.substr(at, end - at));
            for (const char *linkage : {".visible", ".weak", ".extern"})
                if (s.rfind(linkage, 0) == 0)
                    s = trimmed(s.substr(strlen(linkage)));
            if (s.rfind(".global", 0) == 0 || s.rfind(".const", 0) == 0) {
                variable(s.substr(s.find(' ')));
            } else if (s.rfind(".shared", 0) == 0) {
                struct declaration d(s.substr(7));
                if (d.unbounded)
                    dynamic.push_back(d.name);
                else
                    shared[d.name] = (uint64_t)(GUARD_AROUND_SHARED + laid_out(&shared_end, d.align, d.bytes()));
            } else {
                refuse("a directive that is not known", s);
            }
            at = end + 1;
        }
    }
};

/* ----------------------------------------------------------------------------------------------------- for those who use it */

#define FOR_ALL extern "C" __attribute__((visibility("default")))

FOR_ALL void ptx_unload(struct ptx_module *module)
{
    for (auto &each : module->functions)
        delete each.second;
    delete module;
}

/* Returns NULL, and why in `error`, where the text can't be read. */
FOR_ALL struct ptx_module *ptx_load(const char *text, char *error, size_t room)
{
    struct ptx_module *module = new ptx_module();
    struct reader reader = {};
    reader.module = module;
    try {
        reader.read(without_comments(text));
    } catch (const std::exception &problem) {
        snprintf(error, room, "%s%s%s", problem.what(), reader.k ? " in " : "", reader.k ? reader.k->name.c_str() : "");
        ptx_unload(module);
        return NULL;
    }
    module->executed.assign(module->opcodes.size(), 0);
    return module;
}

FOR_ALL const struct ptx_kernel *ptx_find(const struct ptx_module *module, const char *name)
{
    auto found = module->functions.find(name);
    return found == module->functions.end() ? NULL : found->second;
}

FOR_ALL size_t ptx_parameter_bytes(const struct ptx_kernel *kernel) { return (size_t)kernel->argument_bytes; }

/* Opcode number `at` of a module, and how often threads have run it; NULL behind the last. */
FOR_ALL const char *ptx_opcode(const struct ptx_module *module, size_t at, uint64_t *count)
{
    if (at >= module->opcodes.size())
        return NULL;
    *count = module->executed[at];
    return module->opcodes[at].c_str();
}

FOR_ALL const char *emulated_launch(void (*)(const void *), const unsigned *, const unsigned *, int, const void *, int);

/* Run a kernel, as `emulated_launch` does; `argument`: its parameters, at a multiple of 128. Returns NULL or what went wrong. */
FOR_ALL const char *ptx_launch(const struct ptx_kernel *kernel, const unsigned grid[3], const unsigned block[3], int shared,
                               const void *argument, int order)
{
    static char sentence[400];
    if ((int)(block[0] * block[1] * block[2]) > kernel->most_threads)
        return "more threads than the kernel was made for";
    ptx_launched = kernel;
    const char *wrong = emulated_launch(ptx_interpret, grid, block, kernel->shared + shared, argument, order);
    if (!wrong)
        return NULL;
    const struct ptx_frame *f = ptx_now[emulated.current];
    int opcode = f && f->next > f->function->code.data() ? f->next[-1].opcode : -1;
    snprintf(sentence, sizeof sentence, "%s%s%s", wrong, opcode < 0 ? "" : ", at ", opcode < 0 ? "" : kernel->module->opcodes[(size_t)opcode].c_str());
    return sentence;
}
