(component
  (type $incident (record (field "id" u64)))
  (import "sentinel:plugin/docker@0.1.0" (instance
    (export "restart" (func (param "container" string) (result (result))))))
  (import "sentinel:plugin/log@0.1.0" (instance (export "write" (func (param "line" string)))))
  (import "wasi:cli/stdout@0.2.0" (instance))
  (core module $m
    (memory (export "memory") 4)
    (table 8 funcref)
    (func (export "describe") (result i32) i32.const 0)
    (func (export "remediate") (param i32) (result i32) unreachable)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0))
  (core instance $i (instantiate $m))
  (func (export "describe") (result string)
    (canon lift (core func $i "describe") (memory $i "memory") (realloc (func $i "realloc"))))
  (func (export "remediate") (param "incident" u32) (result u32)
    (canon lift (core func $i "remediate"))))
