package demo

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/doc/comment"
	"go/format"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	// largeType is how many bytes of documentation earn a type its own document.
	largeType = 5 << 10
	// largePackage is where a package's document gets too long to be one: its types then leave it, the longest
	// first, as long as they have mediumType bytes.
	largePackage = 28 << 10
	mediumType   = 2 << 10
	// largeFields is how long a struct's declaration may be before its fields are written as paragraphs of their own.
	// A short one reads better whole.
	largeFields = 1500
	// largeGroup is how long a group of constants or variables may be before only its names are written: the tables of
	// error numbers and relocation types are no prose, and there are hundreds of kilobytes of them.
	largeGroup = 6 << 10
)

// documentPackage reads one package and writes its documents: itself first, then its large types by name. There are
// none if it exports nothing.
func documentPackage(source fs.FS, importPath, version string) ([]Document, error) {
	fset := token.NewFileSet()
	files, err := parseFiles(fset, source, importPath, version)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	var mode doc.Mode
	if importPath == "builtin" {
		// It documents the language's own names, most of them lower case.
		mode = doc.AllDecls
	}
	p, err := doc.NewFromFiles(fset, files, importPath, mode)
	if err != nil {
		return nil, err
	}
	if p.Name == "main" || len(p.Consts)+len(p.Vars)+len(p.Funcs)+len(p.Types) == 0 {
		return nil, nil
	}
	w := &packageWriter{fset: fset, pkg: p, parser: p.Parser()}

	sections := make([]string, len(p.Types))
	size := 0
	for i, t := range p.Types {
		sections[i] = w.typeSection(t, 3)
		size += len(sections[i])
	}
	head := w.head()
	size += len(head)
	own := make([]bool, len(p.Types))
	for i, s := range sections {
		if len(s) > largeType {
			own[i] = true
			size -= len(s)
		}
	}
	for size > largePackage {
		longest := -1
		for i, s := range sections {
			if !own[i] && len(s) > mediumType && (longest < 0 || len(s) > len(sections[longest])) {
				longest = i
			}
		}
		if longest < 0 {
			break
		}
		own[longest] = true
		size -= len(sections[longest])
	}

	metadata := func(kind string) map[string]any {
		return map[string]any{"kind": kind, "package": importPath, "version": version}
	}
	var text strings.Builder
	text.WriteString(head)
	if len(p.Types) > 0 {
		text.WriteString("## Types\n\n")
	}
	documents := make([]Document, 1)
	for i, t := range p.Types {
		if !own[i] {
			text.WriteString(sections[i])
			continue
		}
		id := importPath + "." + t.Name
		fmt.Fprintf(&text, "### type %s\n\n%s Its methods are in the document %s.\n\n", t.Name, w.synopsis(t.Doc), id)
		documents = append(documents, Document{
			ID:       id,
			Title:    "type " + id,
			URL:      "https://pkg.go.dev/" + importPath + "#" + t.Name,
			Text:     fmt.Sprintf("# type %s\n\n%s of package %s. %s\n\n%s", id, t.Name, importPath, w.synopsis(p.Doc), w.typeSection(t, 1)),
			Metadata: metadata("type"),
		})
	}
	documents[0] = Document{
		ID:       importPath,
		Title:    "package " + importPath,
		URL:      "https://pkg.go.dev/" + importPath,
		Text:     text.String(),
		Metadata: metadata("package"),
	}
	return documents, nil
}

// parseFiles parses the package's files that a linux/amd64 build without cgo would take.
func parseFiles(fset *token.FileSet, source fs.FS, importPath, version string) ([]*ast.File, error) {
	entries, err := fs.ReadDir(source, importPath)
	if err != nil {
		return nil, err
	}
	contents := make(map[string][]byte)
	target := build.Context{
		GOOS: "linux", GOARCH: "amd64", Compiler: "gc",
		ReleaseTags: releaseTags(version),
		JoinPath:    path.Join,
		// MatchFile wants a file's head; it gets it from the bytes that are parsed afterwards.
		OpenFile: func(name string) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(contents[name])), nil
		},
	}
	var files []*ast.File
	for _, entry := range entries {
		base := entry.Name()
		if entry.IsDir() || !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") {
			continue
		}
		name := path.Join(importPath, base)
		content, err := fs.ReadFile(source, name)
		if err != nil {
			return nil, err
		}
		contents[name] = content
		if ok, err := target.MatchFile(importPath, base); err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		file, err := parser.ParseFile(fset, name, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if file.Name.Name == "documentation" {
			// The customary name of a package that only explains, beside the real one.
			continue
		}
		files = append(files, file)
	}
	return files, nil
}

// releaseTags are the build tags that a Go version satisfies: go1.1 up to its own.
func releaseTags(version string) []string {
	minor := strings.TrimPrefix(version, "go1.")
	if i := strings.IndexFunc(minor, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		minor = minor[:i]
	}
	n, err := strconv.Atoi(minor)
	if err != nil {
		return build.Default.ReleaseTags
	}
	tags := make([]string, n)
	for i := range tags {
		tags[i] = "go1." + strconv.Itoa(i+1)
	}
	return tags
}

// packageWriter writes the documentation of one package as Markdown.
type packageWriter struct {
	fset   *token.FileSet
	pkg    *doc.Package
	parser *comment.Parser
}

// head is the package's document without its types.
func (w *packageWriter) head() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# package %s\n\n", w.pkg.ImportPath)
	w.comment(&b, w.pkg.Doc, 2)
	w.values(&b, "## Constants\n\n", w.pkg.Consts)
	w.values(&b, "## Variables\n\n", w.pkg.Vars)
	if len(w.pkg.Funcs) > 0 {
		b.WriteString("## Functions\n\n")
	}
	for _, f := range w.pkg.Funcs {
		w.function(&b, f, 3)
	}
	return b.String()
}

// typeSection is all about a type. level is its heading's level; level 1 means a document of its own, which has its
// heading already.
func (w *packageWriter) typeSection(t *doc.Type, level int) string {
	var b strings.Builder
	if level > 1 {
		fmt.Fprintf(&b, "%s type %s\n\n", strings.Repeat("#", level), t.Name)
	}
	code := w.code(t.Decl)
	fields := largeStruct(t.Decl, code)
	if fields == nil {
		fence(&b, "go", code)
	}
	w.comment(&b, t.Doc, level+1)
	if fields != nil {
		w.fields(&b, fields, level+1)
	}
	w.values(&b, "", t.Consts)
	w.values(&b, "", t.Vars)
	for _, f := range t.Funcs {
		w.function(&b, f, level+1)
	}
	for _, f := range t.Methods {
		w.function(&b, f, level+1)
	}
	return b.String()
}

// largeStruct gives the struct or interface of a declaration if its code is too long to be shown whole, else nil.
func largeStruct(decl *ast.GenDecl, code string) *ast.FieldList {
	if len(code) <= largeFields || len(decl.Specs) != 1 {
		return nil
	}
	spec, ok := decl.Specs[0].(*ast.TypeSpec)
	if !ok {
		return nil
	}
	switch t := spec.Type.(type) {
	case *ast.StructType:
		return t.Fields
	case *ast.InterfaceType:
		return t.Methods
	}
	return nil
}

// fields writes the fields of a large struct, or the methods of a large interface, a paragraph each.
func (w *packageWriter) fields(b *strings.Builder, list *ast.FieldList, level int) {
	fmt.Fprintf(b, "%s Fields\n\n", strings.Repeat("#", level))
	for _, field := range list.List {
		text := field.Doc.Text()
		if text == "" {
			text = field.Comment.Text()
		}
		declared := strings.ReplaceAll(w.code(&ast.Field{Names: field.Names, Type: field.Type, Tag: field.Tag}), "\n", " ")
		fmt.Fprintf(b, "`%s`\n\n", strings.ReplaceAll(declared, "`", ""))
		w.comment(b, text, level+1)
	}
}

// values writes groups of constants or variables below a heading, if there are any.
func (w *packageWriter) values(b *strings.Builder, heading string, values []*doc.Value) {
	if len(values) == 0 {
		return
	}
	b.WriteString(heading)
	for _, v := range values {
		w.comment(b, v.Doc, 3)
		code := w.code(v.Decl)
		if len(code) > largeGroup {
			const names = 100
			listed := v.Names[:min(names, len(v.Names))]
			fmt.Fprintf(b, "%d names", len(v.Names))
			if len(listed) < len(v.Names) {
				fmt.Fprintf(b, ", the first %d of them", names)
			}
			fmt.Fprintf(b, ": %s.\n\n", strings.Join(listed, ", "))
			continue
		}
		fence(b, "go", code)
	}
}

// function writes a function or method.
func (w *packageWriter) function(b *strings.Builder, f *doc.Func, level int) {
	receiver := ""
	if f.Recv != "" {
		receiver = "(" + f.Recv + ") "
	}
	fmt.Fprintf(b, "%s func %s%s\n\n", strings.Repeat("#", level), receiver, f.Name)
	fence(b, "go", w.code(f.Decl))
	w.comment(b, f.Doc, level+1)
}

// code is a declaration as gofmt writes it.
func (w *packageWriter) code(declaration any) string {
	if field, ok := declaration.(*ast.Field); ok {
		// A field is no node that can be printed alone.
		var names []string
		for _, n := range field.Names {
			names = append(names, n.Name)
		}
		t := w.code(field.Type)
		if signature, ok := strings.CutPrefix(t, "func("); ok && len(names) == 1 {
			if _, isFunc := field.Type.(*ast.FuncType); isFunc {
				return names[0] + " func(" + signature
			}
		}
		return strings.TrimSpace(strings.Join(names, ", ") + " " + t)
	}
	var b bytes.Buffer
	if err := format.Node(&b, w.fset, declaration); err != nil {
		// It was parsed a moment ago, so it can be printed.
		panic(fmt.Sprintf("print a declaration of %s: %v", w.pkg.ImportPath, err))
	}
	return b.String()
}

func (w *packageWriter) synopsis(text string) string { return w.pkg.Synopsis(text) }

func fence(b *strings.Builder, language, code string) {
	fmt.Fprintf(b, "```%s\n%s\n```\n\n", language, strings.TrimRight(code, "\n"))
}

// comment writes a doc comment as Markdown whose headings have the given level. It does not use comment.Printer's
// Markdown, which escapes every underscore and links every name: both get in the way of reading and searching the text.
func (w *packageWriter) comment(b *strings.Builder, text string, level int) {
	if text == "" {
		return
	}
	for _, block := range w.parser.Parse(text).Content {
		w.block(b, block, level)
	}
}

func (w *packageWriter) block(b *strings.Builder, block comment.Block, level int) {
	switch block := block.(type) {
	case *comment.Heading:
		fmt.Fprintf(b, "%s %s\n\n", strings.Repeat("#", min(level, 6)), inline(block.Text))
	case *comment.Paragraph:
		text := inline(block.Text)
		if text != "" && strings.ContainsRune("#>-+*", rune(text[0])) {
			// It is prose, not the beginning of a Markdown block.
			text = `\` + text
		}
		b.WriteString(text + "\n\n")
	case *comment.Code:
		fence(b, "", block.Text)
	case *comment.List:
		for _, item := range block.Items {
			marker := "- "
			if item.Number != "" {
				marker = item.Number + ". "
			}
			for i, part := range item.Content {
				text := "" // an item holds paragraphs only
				if p, ok := part.(*comment.Paragraph); ok {
					text = inline(p.Text)
				}
				if i == 0 {
					b.WriteString(marker + text + "\n")
				} else {
					b.WriteString("\n" + strings.Repeat(" ", len(marker)) + text + "\n")
				}
			}
		}
		b.WriteString("\n")
	}
}

// inline is the text of a paragraph in one line.
func inline(texts []comment.Text) string {
	var b strings.Builder
	var write func(texts []comment.Text)
	write = func(texts []comment.Text) {
		for _, t := range texts {
			switch t := t.(type) {
			case comment.Plain:
				b.WriteString(string(t))
			case comment.Italic:
				b.WriteString(string(t))
			case *comment.DocLink:
				write(t.Text)
			case *comment.Link:
				if t.Auto {
					b.WriteString(t.URL)
					continue
				}
				b.WriteByte('[')
				write(t.Text)
				b.WriteString("](" + t.URL + ")")
			}
		}
	}
	write(texts)
	return strings.Join(slices.Collect(strings.FieldsSeq(b.String())), " ")
}
