# The links of the documents, for one folder in which all of them lie, the examples below it. Those
# about the source stay in the source.
s#\[([^]]*)\]\((docs/)?((design|performance|CONTRIBUTING)\.md)(\#[^)]*)?\)#\1 (\2\3 of the source)#g
s#\[([^]]*)\]\((tests/[^)]*)\)#\2 of the source#g
s#\[packaging/\]\((\.\./)?packaging/\)#packaging/ of the source#g
s#docs/(configuring|getting-started|handlers|measuring|monitoring|operating|scaling|security)\.md#\1.md#g
s#\]\((docs/)?(pictures|performance)/#](html/_images/#g
s#\]\(\.\./packaging/examples/#](examples/#g
s#\]\(\.\./SECURITY\.md#](SECURITY.md#g
