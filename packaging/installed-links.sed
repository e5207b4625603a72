# The links of the documents, for one folder in which all of them lie, the examples and the book in
# HTML below it. What is about the source stays in the source.
s#\]\((docs/)?(design|index|performance)\.md(\#[^)]*)?\)#](html/\2.html\3)#g
s#\[([^]]*)\]\(CONTRIBUTING\.md(\#[^)]*)?\)#\1 (CONTRIBUTING.md of the source)#g
s#\[([^]]*)\]\((tests/[^)]*)\)#\2 of the source#g
s#\[packaging/\]\((\.\./)?packaging/\)#packaging/ of the source#g
s#docs/(configuring|getting-started|handlers|measuring|monitoring|operating|records|scaling|security|settings)\.md#\1.md#g
s#\]\((docs/)?(pictures|performance)/#](html/_images/#g
s#\]\(\.\./packaging/examples/#](examples/#g
s#\]\(\.\./SECURITY\.md#](SECURITY.md#g
