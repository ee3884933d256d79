(module (memory 1 2) (table 3 funcref) (func (export "_start")))
